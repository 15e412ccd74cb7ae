import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from './shared.ts'

const { pageOf } = await import(pathToFileURL(join(root, 'tools/address.js')).href)
const { linked, published } = await import(pathToFileURL(join(root, 'tools/pack.js')).href)

test('every form of a remote is the same page, without user, password and port', () => {
  for (const remote of [
    'git@github.com:someone/mixtrain.git',
    'github.com:someone/mixtrain',
    'ssh://git@github.com:22/someone/mixtrain.git',
    'https://github.com/someone/mixtrain.git',
    'https://github.com/someone/mixtrain/',
    'https://someone:secret@GitHub.com/someone/mixtrain.git',
    'git://github.com/someone/mixtrain.git',
  ])
    assert.is(pageOf(remote), 'https://github.com/someone/mixtrain', remote)
  assert.is(pageOf('git@gitlab.com:group/part/mixtrain.git'), 'https://gitlab.com/group/part/mixtrain')
})

test('a remote that has no page that is known names none', () => {
  for (const remote of [
    ...['/srv/git/mixtrain.git', '../mixtrain', 'file:///srv/mixtrain.git', 'C:\\git\\mixtrain', 'C:/git/mixtrain', ''],
    ...['git@intern.example:someone/mixtrain.git', 'https://github.com.example/a/b', 'https://github.com/someone'],
    ...['https://github.com/some one/mixtrain', 'github.com', 'https://', 'javascript:github.com/a/b'],
  ])
    assert.is(pageOf(remote), undefined, remote)
})

test('the manifest of the package has the address that is known and nothing that only a checkout needs', () => {
  const manifest = { name: 'mixtrain', version: '0.1.0', scripts: { prepare: 'x' }, devDependencies: {}, bin: 'b' }
  const own = { name: 'mixtrain', version: '0.1.0', bin: 'b' }
  assert.equal(published(manifest, undefined), own)
  assert.equal(published(manifest, 'https://github.com/someone/mixtrain'), {
    ...own,
    repository: { type: 'git', url: 'git+https://github.com/someone/mixtrain.git' },
    homepage: 'https://github.com/someone/mixtrain#readme',
    bugs: { url: 'https://github.com/someone/mixtrain/issues' },
  })
})

test('links of the README that lead out of the package lead to the project, if its address is known', () => {
  const readme = '[a](docs/a.md#b) [c](CHANGELOG.md) ![p](bench/p.svg) [h](https://example.org/x) [t](#top)'
  const isPacked = (path: string): boolean => path !== 'docs/a.md'
  assert.is(linked(readme, undefined, isPacked), readme)
  assert.is(
    linked(readme, 'https://github.com/someone/mixtrain', isPacked),
    readme.replace('docs/', 'https://github.com/someone/mixtrain/blob/HEAD/docs/'),
  )
})

test.run()
