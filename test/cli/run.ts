import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as assert from 'uvu/assert'

export const main: string = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

/** The command that runs a script with the runtime of this process. */
export const runtime: readonly string[] =
  'Deno' in globalThis ? [process.execPath, 'run', '-A', '--node-modules-dir=manual'] : [process.execPath]

export interface Ended {
  /** Exit code, or the signal that ended it. */
  readonly code: number | string | null
  readonly out: string
  readonly err: string
}

export interface Running {
  readonly pid: number
  readonly kill: (signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGKILL') => void
  readonly ended: Promise<Ended>
}

/** Starts a command line. */
export const start = (argv: readonly string[], cwd?: string): Running => {
  const child = spawn(argv[0], argv.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(cwd === undefined ? {} : { cwd }),
  })
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  return {
    pid: child.pid ?? 0,
    kill: (signal) => {
      child.kill(signal)
    },
    ended: new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (code, signal) => resolve({ code: code ?? signal, out, err }))
    }),
  }
}

/** Resolves when the log of a run has so many lines, or the process is over. */
export const logged = async (folder: string, lines: number, { ended }: Running): Promise<void> => {
  let over = false
  void ended.then(() => {
    over = true
  })
  const path = join(folder, 'log.jsonl')
  while (!over && !(existsSync(path) && readFileSync(path, 'utf8').split('\n').length > lines))
    await new Promise((resolve) => setTimeout(resolve, 5))
}

/** Runs `mixtrain` to its end. */
export const mixtrain = (args: readonly string[], cwd?: string): Promise<Ended> =>
  start([...runtime, main, ...args], cwd).ended

/** Runs `mixtrain ... --json`, which must succeed with one JSON document on standard output. */
export const json = async (args: readonly string[]): Promise<Record<string, unknown>> => {
  const { code, out, err } = await mixtrain([...args, '--json'])
  assert.is(code, 0, err)
  return JSON.parse(out) as Record<string, unknown>
}

/** A failure: exit code, no stack trace, and a message with all of these in it. */
export const refused = async (args: readonly string[], code: 1 | 2, ...says: readonly (string | RegExp)[]) => {
  const ended = await mixtrain(args)
  const shown = `mixtrain ${args.join(' ')}\n${ended.err}`
  assert.is(ended.code, code, shown)
  assert.is(ended.out, '', shown)
  assert.not.match(ended.err, /\n\s+at .*\.[jt]s:\d|defect/, shown)
  for (const text of says)
    assert.ok(typeof text === 'string' ? ended.err.includes(text) : text.test(ended.err), `${text}: ${shown}`)
}

/** A test with a folder of its own. */
export const inFolder = (body: (folder: string) => Promise<void>) => async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mixtrain-'))
  try {
    await body(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
