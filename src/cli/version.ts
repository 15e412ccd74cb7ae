import { readFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { sha256 } from '../core/hash.ts'

const read = (): string => {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
    readonly version: string
  }
  return version
}

/** Version of this package. */
export const VERSION: string = read()

/** SHA-256 of the compiled program: all its modules, by name. */
export const codeHash = async (): Promise<string> => {
  const folder = new URL('../', import.meta.url)
  const names = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.js')).sort()
  return sha256(
    new TextEncoder().encode(names.map((n) => `${n}\n${readFileSync(new URL(n, folder), 'latin1')}`).join('\n')),
  )
}
