import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../shared.ts'

const { addressOf } = await import(pathToFileURL(join(root, 'tools/address.js')).href)
const { packed } = await import(pathToFileURL(join(root, 'tools/pack.js')).href)

const git = (folder: string, ...args: readonly string[]): string => {
  const { status, stdout, stderr } = spawnSync('git', args, { cwd: folder, encoding: 'utf8' })
  assert.is(status, 0, stderr)
  return stdout
}

/** A clone of the checkout as it is now, without what a build makes. */
const cloneIn = (folder: string, remote: string | undefined): string => {
  const clone = join(folder, 'a clone')
  mkdirSync(join(clone, 'bench/results'), { recursive: true })
  for (const path of ['package.json', 'README.md', 'CHANGELOG.md', 'LICENSE', 'bench/results/race-frontier.svg'])
    cpSync(join(root, path), join(clone, path))
  git(clone, 'init', '--quiet')
  git(clone, 'add', '.')
  git(clone, '-c', 'user.name=t', '-c', 'user.email=t@example.org', 'commit', '--quiet', '-m', 'all')
  if (remote !== undefined) git(clone, 'remote', 'add', 'origin', remote)
  return clone
}

const within = (use: (folder: string) => void): void => {
  const folder = mkdtempSync(join(tmpdir(), 'mixtrain pack '))
  try {
    use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const FIELDS = ['repository', 'homepage', 'bugs'] as const

for (const [remote, page] of [
  ['git@github.com:someone/mixtrain.git', 'https://github.com/someone/mixtrain'],
  [undefined, undefined],
  ['/srv/git/mixtrain.git', undefined],
] as const)
  test(`the tarball of a clone with ${remote === undefined ? 'no remote' : `the remote ${remote}`} names ${page ?? 'no address'}, twice the same`, () =>
    within((folder) => {
      const clone = cloneIn(folder, remote)
      const tarballs = [1, 2].map(() => {
        const { tarball } = packed(clone, join(folder, 'out'))
        return readFileSync(tarball)
      })
      assert.ok(tarballs[0].equals(tarballs[1]))
      const manifest = JSON.parse(readFileSync(join(folder, 'out/package/package.json'), 'utf8'))
      assert.equal(
        Object.fromEntries(FIELDS.map((field) => [field, manifest[field]])),
        page === undefined
          ? { repository: undefined, homepage: undefined, bugs: undefined }
          : {
              repository: { type: 'git', url: `git+${page}.git` },
              homepage: `${page}#readme`,
              bugs: { url: `${page}/issues` },
            },
      )
      assert.is(manifest.scripts, undefined)
      const readme = readFileSync(join(folder, 'out/package/README.md'), 'utf8')
      assert.is(readme.includes(`](${page}/blob/HEAD/docs/losses.md)`), page !== undefined)
      assert.ok(readme.includes('](bench/results/race-frontier.svg)'))
      assert.ok(existsSync(join(folder, 'out/package/bench/results/race-frontier.svg')))
      assert.is(git(clone, 'status', '--porcelain'), '')
    }))

test('a checkout that cannot be packed stays as it is', () =>
  within((folder) => {
    const clone = cloneIn(folder, 'git@github.com:someone/mixtrain.git')
    rmSync(join(clone, 'README.md'))
    assert.throws(() => packed(clone, join(folder, 'out')))
    assert.is(git(clone, 'status', '--porcelain').trim(), 'D README.md')
  }))

test('a folder within the checkout of another project has not that address', () =>
  within((folder) => {
    const clone = cloneIn(folder, 'git@github.com:someone/other.git')
    mkdirSync(join(clone, 'vendored'))
    assert.is(addressOf(join(clone, 'vendored')), undefined)
    assert.is(addressOf(join(folder)), undefined)
  }))

test('npm publish of the checkout itself is refused, and says what to publish', () => {
  const { status, stderr } = spawnSync(process.execPath, ['tools/pack.js', '--publish'], {
    cwd: root,
    encoding: 'utf8',
  })
  assert.is(status, 1)
  assert.match(stderr, 'npm run pack')
})

test.run()
