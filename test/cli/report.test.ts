import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { drawn, escaped } from '../../src/cli/html/chart.ts'
import { pageOf } from '../../src/cli/html/page.ts'
import { bitmap, isPicture } from '../../src/cli/html/picture.ts'
import type { EpochRecord } from '../../src/train/fit.ts'
import { inFolder, json, mixtrain, refused } from './run.ts'

test('a bitmap has its pixels where an image has them', () => {
  const bytes = Buffer.from(bitmap([0, 1, 0.5, 0.2, 0, 0], [1, 2, 3]).split(',')[1], 'base64')
  assert.is(bytes.length, 54 + 2 * 12)
  assert.equal([bytes.readUInt32LE(2), bytes.readInt32LE(18), bytes.readInt32LE(22)], [bytes.length, 3, 2])
  // Rows from below, blue green red.
  assert.equal([...bytes.subarray(54 + 12, 54 + 12 + 9)], [0, 0, 0, 255, 255, 255, 128, 128, 128])
  assert.equal([...Buffer.from(bitmap([1, 0.5, 0], [3, 1, 1]).split(',')[1], 'base64').subarray(54, 57)], [0, 128, 255])
  assert.ok(isPicture([3, 4, 4]) && !isPicture([6, 1, 1]) && !isPicture([6]))
})

test('a chart has a line and a mark for each series, in place; what was not measured is left out', () => {
  const svg = drawn({
    title: 'a < b',
    x: 'epoch',
    lines: [
      {
        label: 'one',
        points: [
          [1, 0],
          [2, 1],
        ],
      },
      {
        label: 'two',
        points: [
          [1, null],
          [2, 0.5],
        ],
      },
    ],
  })
  assert.match(svg, /d="M46\.0 206\.0L408\.0 10\.0"/)
  assert.match(svg, /d="M408\.0 108\.0"/)
  assert.ok(svg.includes(escaped('a < b')) && !svg.includes('a < b'))
  assert.is(drawn({ title: 'none', x: 'epoch', lines: [{ label: 'one', points: [[1, null]] }] }), '')
})

test('names and settings cannot become markup', () => {
  const history: readonly EpochRecord[] = []
  const evil = '<script>alert(1)</script>'
  const page = pageOf([{ name: evil, history, settings: { data: evil }, final: null, measured: undefined }], evil)
  assert.not.ok(page.includes('<script'))
})

test(
  'runs become one page with nothing from elsewhere, and a table of their logs',
  inFolder(async (folder) => {
    const [first, second] = ['first', 'second'].map((name) => join(folder, name))
    const small = ['--device', 'wasm', '--threads', '1', '--limit', '120,20', '--epsilon', '0.02', '--epochs', '2']
    await json(['train', ...small, '--output', first])
    await json(['train', ...small, '--loss', 'natural', '--output', second])
    const [output, csv, events] = ['page.html', 'logs.csv', 'events'].map((name) => join(folder, name))
    const more = [
      '--output',
      output,
      '--csv',
      csv,
      '--tfevents',
      events,
      '--limit',
      '20',
      '--steps',
      '5',
      '--device',
      'wasm',
    ]
    const { code, out, err } = await mixtrain(['report', first, second, ...more])
    assert.is(code, 0, err)
    assert.is(out, `2 runs are in ${output}\n`)
    const page = readFileSync(output, 'utf8')
    assert.not.match(page, /(src|href)="(?!data:image)|<script|@import|url\(/)
    for (const says of ['ACC, held out', 'VRA over epsilon', 'By class', 'Confusion under attack', 'data:image/bmp'])
      assert.ok(page.includes(says), says)
    // Every image is somewhere in each confusion: 20 of each run.
    const cells = [...page.matchAll(/<table class="confusion">(.*?)<\/table>/gs)].map(([, rows]) =>
      [...rows.matchAll(/<td[^>]*>(\d*)<\/td>/g)].reduce((sum, [, n]) => sum + Number(n), 0),
    )
    assert.equal(cells, [20, 20])
    const lines = readFileSync(csv, 'utf8').trimEnd().split('\n')
    assert.is(lines.length, 5)
    assert.match(lines[0], /^run,epoch,seconds,loss,.*,term\.natural,term\.robust$/)
    assert.match(lines[4], /^second,1,/)
    for (const name of ['first', 'second'])
      assert.ok(readFileSync(join(events, name, 'events.out.tfevents.mixtrain')).includes('held-out/VRA'))
    // Logs alone are there at once: no model is looked at.
    rmSync(join(second, 'model.safetensors'))
    const again = join(folder, 'again.csv')
    assert.is((await mixtrain(['report', first, second, '--csv', again])).out, `the logs are in ${again}\n`)
    assert.is(readFileSync(again, 'utf8'), readFileSync(csv, 'utf8'))
    await refused(
      ['check', join(first, 'report.json')],
      1,
      'expected a certificate or a proof, found JSON whose "format"',
    )
    await refused(['report', first, first], 2, 'two runs have the same name')
    await refused(['report', join(folder, 'none')], 1, 'none')
    assert.not.ok(existsSync('report.html'))
  }),
)

test(
  'the radius of every image goes to a table',
  inFolder(async (folder) => {
    const run = join(folder, 'run')
    const small = ['--device', 'wasm', '--threads', '1']
    await json(['train', ...small, '--limit', '120,20', '--epochs', '1', '--loss', 'natural', '--output', run])
    const [model, csv] = [join(run, 'model.safetensors'), join(folder, 'radii.csv')]
    const limits = ['--limit', '10', '--most', '0.125', '--steps', '4']
    const { radius, count } = await json(['radius', model, ...limits, '--csv', csv, ...small])
    assert.is(count, 10)
    const lines = readFileSync(csv, 'utf8').trimEnd().split('\n')
    assert.equal(
      lines.slice(1).map((line) => line.split(',')[2]),
      (radius as readonly (number | null)[]).map((r) => (r === null ? '' : String(r))),
    )
    for (const r of radius as readonly (number | null)[]) assert.ok(r === null || Number.isInteger((r / 0.125) * 16))
    await refused(['radius', model, '--most', '0'], 2, '--most: expected a number above 0')

    // Verdicts of evaluate by image: their sums are its rates.
    const table = join(folder, 'verdicts.csv')
    const asked = ['--epsilon', '0.01', '--limit', '20', '--attack', 'fgsm', '--per-image', table]
    const { acc, era, vra } = await json(['evaluate', model, ...asked, ...small])
    const [head, ...body] = readFileSync(table, 'utf8').trimEnd().split('\n')
    assert.is(head, 'image,label,correct,robust,verified,margin')
    const cells = body.map((line) => line.split(',').map(Number))
    const share = (column: number) => cells.reduce((sum, row) => sum + row[column], 0) / 20
    assert.equal([share(2), share(3), share(4)], [acc, era, vra])
    for (const [, , , , verified, margin] of cells) assert.ok(verified === 0 || margin > 0)
    await refused(['evaluate', model, ...asked, '--output', folder], 2, 'neither certificate nor table')
  }),
)

test.run()
