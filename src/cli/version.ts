import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'

const read = (): string => {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
    readonly version: string
  }
  return version
}

/** Version of this package. */
export const VERSION: string = read()

/** The file that this module came to lie in: itself, or the one file of the whole command line (tools/build-cli.js). */
const WHOLE = 'mixtrain.js'

/**
 * SHA-256 of the program that runs: of the names of its modules and the SHA-256 of each. The one file of the command line has all that is not generated; where the modules are loaded
 * one by one, each of them counts. (So both have a hash of their own, and shards by one are not merged with those by the other.)
 */
export const codeHash = async (): Promise<string> => {
  const folder = new URL('../', import.meta.url)
  const isWhole = import.meta.url.endsWith(`/${WHOLE}`)
  const names = (await readdir(folder, { recursive: true }))
    .map((name) => name.replaceAll('\\', '/'))
    .filter((name) => name.endsWith('.js') && (!isWhole || name.endsWith(`/${WHOLE}`) || name.includes('/generated/')))
    .sort()
  const whole = createHash('sha256')
  for (const name of names)
    whole.update(
      `${name} ${createHash('sha256')
        .update(readFileSync(new URL(name, folder)))
        .digest('hex')}\n`,
    )
  return whole.digest('hex')
}
