import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import * as assert from 'uvu/assert'
import { runtime } from './cli/run.ts'
import { root } from './shared.ts'

/** Every page for readers, by path below the root. */
export const pages = new Map(
  [
    ...readdirSync(root).filter((name) => name.endsWith('.md')),
    ...['docs', 'examples', 'proofs', 'tools/vnncomp'].flatMap((folder) =>
      readdirSync(join(root, folder))
        .filter((name) => name.endsWith('.md'))
        .map((name) => `${folder}/${name}`),
    ),
  ].map((path) => [path, readFileSync(join(root, path), 'utf8')]),
)

export interface Example {
  readonly page: string
  readonly code: string
  /** What the page says that it prints, in a block of its own right behind. */
  readonly output: string | undefined
}
export const examples: readonly Example[] = [...pages].flatMap(([path, text]) =>
  [...text.matchAll(/```ts\n([\s\S]*?)```\n(?:\n```output\n([\s\S]*?)```)?/g)].map(([, code, output]) => ({
    page: path,
    code,
    output,
  })),
)

/** Inside the package, so that its own name resolves to its own exports. */
export const inFolder = async (f: (folder: string) => void | Promise<void>): Promise<void> => {
  const folder = mkdtempSync(fileURLToPath(new URL('readme-', import.meta.url)))
  try {
    await f(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const compilerOptions = ['--strict', '--skipLibCheck', '--module', 'nodenext', '--target', 'es2022', '--types', 'node']
const tsc = join(root, 'node_modules/typescript/bin/tsc')
export const compile = (files: readonly string[], ...more: readonly string[]): void => {
  const argv = [tsc, '--ignoreConfig', ...compilerOptions, ...more, ...files]
  const { status, stdout } = spawnSync(process.execPath, argv, { cwd: root, encoding: 'utf8' })
  assert.is(status, 0, stdout)
}
/** What a compiled example prints, run in a folder that has the files that it reads. */
export const run = async (file: string, cwd?: string): Promise<string> => {
  const [command, ...argv] = [...runtime, file.replace(/mts$/, 'mjs')]
  return (await promisify(execFile)(command, argv, cwd === undefined ? {} : { cwd })).stdout
}

/** That programs print what their pages say. */
export const print = (shown: readonly Example[]): Promise<void> =>
  inFolder(async (folder) => {
    for (const { page, output, code } of shown) assert.ok(output !== undefined, `${page}: ${code}`)
    const files = shown.map(({ code }, i) => {
      const file = join(folder, `shown-${i}.mts`)
      writeFileSync(file, code)
      return file
    })
    compile(files)
    for (const [i, { page, output }] of shown.entries()) assert.is(await run(files[i]), output, page)
  })
