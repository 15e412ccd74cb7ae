import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Trial } from '../../bench/tune-front.ts'
import { inFolder, runtime, start } from '../cli/run.ts'
import { root } from '../shared.ts'

const OPTIONS = '--losses ibp --trials 3 --rungs 1,2 --eta 3 --limit 120,40 --network mlp'.split(' ')
const search = (folder: string) => [...runtime, join(root, 'dist', 'bench', 'tune.js'), ...OPTIONS, '--results', folder]
const trials = (folder: string): readonly Trial[] => {
  const file = join(folder, 'tune.jsonl')
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : []
  return lines.map((line) => JSON.parse(line))
}
/** But for the time it took, and the order in which trainings side by side ended. */
const results = (folder: string) =>
  trials(folder)
    .map(({ seconds: _, ...trial }) => trial)
    .toSorted((a, b) => (a.run < b.run ? -1 : 1))

test(
  'a search that is killed goes on without loss or repetition, and finds what one in one piece finds',
  inFolder(async (folder) => {
    const [whole, parts] = [join(folder, 'whole'), join(folder, 'parts')]
    const done = await start(search(whole)).ended
    assert.is(done.code, 0, done.err)
    assert.equal(
      results(whole)
        .map((t) => t.run)
        .filter((run) => run.endsWith('rung0')),
      ['ibp-0-rung0', 'ibp-1-rung0', 'ibp-2-rung0'],
    )
    assert.is(results(whole).length, 4)
    const first = start([...search(parts), '--jobs', '1'])
    while (trials(parts).length < 2) await new Promise((resolve) => setTimeout(resolve, 20))
    first.kill('SIGTERM')
    assert.is((await first.ended).code, 143)
    const again = await start(search(parts)).ended
    assert.is(again.code, 0, again.err)
    assert.equal(results(parts), results(whole))
    const other = await start([...search(parts), '--seed', '1']).ended
    assert.is(other.code, 1)
    assert.match(other.err, /another search \(seed\)/)
  }),
)

test.run()
