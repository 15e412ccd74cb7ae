import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { count } from '../src/cli/options.ts'
import { timed } from './child.ts'
import { note, option } from './options.ts'
import { median } from './statistics.ts'

/**
 * What an evaluation in shards costs beside one run: CPU seconds of both, start-up included, and whether they say the same.
 *
 *   npm run bench:shards -- --model model.safetensors [--data mnist/] [--limit 10000] [--shards 64] [--calls 2] [-- OPTIONS OF evaluate]
 *
 * The shards are judged twice: each by a call of its own, and by so many calls that have as many shards each.
 * The options of evaluate are `--epsilon 0.1 --attack pgd --method crown` unless others follow `--`.
 */
const { values, positionals } = parseArgs({
  options: {
    model: { type: 'string' },
    data: { type: 'string', default: 'digits' },
    limit: { type: 'string', default: '10000' },
    shards: { type: 'string', default: '64' },
    calls: { type: 'string', default: '2' },
  },
  allowPositionals: true,
})
if (values.model === undefined) {
  note('--model: expected a model, such as runs/first/model.safetensors')
  process.exit(1)
}
const [limit, shards] = [option('limit', count, values.limit), option('shards', count, values.shards)]
const calls = Math.min(shards, option('calls', count, values.calls))
const asked = positionals.length === 0 ? ['--epsilon', '0.1', '--attack', 'pgd', '--method', 'crown'] : positionals
const main = fileURLToPath(new URL('../src/cli/mixtrain.js', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'shards-'))

/** CPU seconds of a call that has some shards. */
const shard = (which: string | number, of: number, output: string): number => {
  const about = ['evaluate', values.model as string, '--data', values.data, '--limit', String(limit), ...asked]
  const own = ['--device', 'wasm', '--threads', '1', '--shard', `${which}/${of}`, '--output', output]
  const { cpu, err } = timed([process.execPath, main, ...about, ...own])
  if (err.includes('mixtrain: ')) throw new Error(err)
  return cpu
}
/** What was decided of each image, in order, whichever shard had it. */
const decisions = (output: string, of: number): string =>
  Array.from({ length: of }, (_, i) =>
    readFileSync(join(output, `shard-${String(i + 1).padStart(String(of).length, '0')}-of-${of}.jsonl`), 'utf8')
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => JSON.parse(line) as { readonly image: number }),
  )
    .flat()
    .sort((a, b) => a.image - b.image)
    .map((record) => JSON.stringify({ ...record, seal: undefined }))
    .join('\n')

try {
  const [whole, parts, grouped] = ['whole', 'parts', 'grouped'].map((name) => join(folder, name))
  const one = shard(1, 1, whole)
  note(`one run: ${one.toFixed(1)} CPU s`)
  const each = Array.from({ length: shards }, (_, i) => {
    const cpu = shard(i + 1, shards, parts)
    note(`shard ${i + 1} of ${shards}: ${cpu.toFixed(2)} CPU s`)
    return cpu
  })
  const groups = Array.from({ length: calls }, (_, i) => {
    const [from, to] = [i, i + 1].map((k) => Math.floor((k * shards) / calls))
    const cpu = shard(`${from + 1}-${to}`, shards, grouped)
    note(`shards ${from + 1} to ${to}: ${cpu.toFixed(2)} CPU s`)
    return cpu
  }).reduce((a, b) => a + b, 0)
  const sum = each.reduce((a, b) => a + b, 0)
  const same = [parts, grouped].every((own) => decisions(whole, 1) === decisions(own, shards))
  const start = (sum - one) / (shards - 1)
  console.log(
    `${limit} images, ${asked.join(' ')}; ${cpus()[0].model}, Node ${process.version}, load ${loadavg()[0].toFixed(1)}\n` +
      `one run ${one.toFixed(1)} CPU s, ${shards} shards ${sum.toFixed(1)} (median ${median(each).toFixed(2)} each): ${(100 * (sum / one - 1)).toFixed(1)} % more\n` +
      `${shards} shards in ${calls} calls ${groups.toFixed(1)} CPU s: ${(100 * (groups / one - 1)).toFixed(1)} % more\n` +
      `a start costs ${start.toFixed(2)} CPU s: ${shards} shards cost 5 % more than one run of ${(20 * start * (shards - 1)).toFixed(0)} CPU s\n` +
      `the records ${same ? 'are the same' : 'differ'}`,
  )
  process.exitCode = same ? 0 : 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
