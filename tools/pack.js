// Makes the package as it is published: build/package, and build/mixtrain-VERSION.tgz of it. The checkout stays as it is, whatever happens.
//
//   node tools/pack.js [--to FOLDER]
//
// The files are those that npm would pack from the checkout. The manifest of the package has the address of the project, where git knows one, and nothing that
// only a checkout needs: a script `prepare` would run, or be warned of, where a tarball is installed. Publish the tarball, not the checkout.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { addressOf } from './address.js'

/** The manifest of the package from that of the checkout, and the address of the project if there is one. */
export const published = ({ scripts: _, devDependencies: __, ...manifest }, page) => ({
  ...manifest,
  ...(page === undefined
    ? {}
    : {
        repository: { type: 'git', url: `git+${page}.git` },
        homepage: `${page}#readme`,
        bugs: { url: `${page}/issues` },
      }),
})

/** The README of the package: what it links to and the package does not have is where the project lives, if that is known. */
export const linked = (readme, page, isPacked) =>
  page === undefined
    ? readme
    : readme.replace(/\]\((?![a-z]+:|#)([^)#\s]+)/g, (whole, path) =>
        isPacked(path) ? whole : `](${page}/blob/HEAD/${path}`,
      )

/** npm, which is a script on Windows. */
const npm = (cwd, ...args) => {
  const { status, stdout, stderr } = spawnSync('npm', args, {
    ...{ cwd, encoding: 'utf8', maxBuffer: 2 ** 28, shell: process.platform === 'win32' },
  })
  if (status !== 0) throw new Error(`npm ${args.join(' ')} exited with ${status}\n${stdout ?? ''}${stderr ?? ''}`)
  return stdout
}

/** Packs a checkout that is built, and says where the tarball is, what it weighs and which address it names. */
export const packed = (root, to) => {
  const [{ files }] = JSON.parse(npm(root, 'pack', '--dry-run', '--ignore-scripts', '--json'))
  const paths = files.map(({ path }) => path)
  const folder = join(to, 'package')
  rmSync(folder, { recursive: true, force: true })
  for (const path of paths) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    cpSync(join(root, path), join(folder, path))
  }
  const page = addressOf(root)
  const manifest = published(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')), page)
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  writeFileSync(
    join(folder, 'README.md'),
    linked(readme, page, (path) => paths.includes(path)),
  )
  const [{ filename, size, unpackedSize }] = JSON.parse(npm(folder, 'pack', '--json', '--pack-destination', '..'))
  return { tarball: join(to, filename), size, unpackedSize, page }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [option, to] = process.argv.slice(2)
  if (option === '--publish') {
    console.error('The checkout is not what is published: npm run pack, then npm publish build/mixtrain-VERSION.tgz')
    process.exit(1)
  }
  const root = fileURLToPath(new URL('..', import.meta.url))
  const { tarball, size, page } = packed(root, option === '--to' && to ? to : join(root, 'build'))
  console.log(
    `${tarball}: ${Math.round(size / 1000)} kB; ${page === undefined ? 'git knows no public address of the project (remote origin), so the package names none' : page}`,
  )
}
