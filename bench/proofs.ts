import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type Ran, timed } from './child.ts'

/**
 * What proofs cost, by family: every so many instances of a list with a verdict `unsat` are decided, decided with a proof, and their proofs checked, each by a process of its
 * own on one thread. Prints CPU seconds (user and system, start-up included), leaves and bytes of each, and the sums of each family.
 *
 *   node dist/bench/proofs.js --list instances.csv [--families acasxu,mnist_fc] [--each 5] [--timeout 30] [--semantics real]
 *
 * The list has a header and a line `family,onnx,vnnlib,...,verdict` for each instance; files lie, gzipped or not, in the family's folder beside it.
 */
const { values: given } = parseArgs({
  options: {
    list: { type: 'string', default: 'instances.csv' },
    families: { type: 'string', default: 'acasxu,rl_benchmarks,mnist_fc,collins_rul_cnn,dist_shift' },
    each: { type: 'string', default: '5' },
    timeout: { type: 'string', default: '30' },
    semantics: { type: 'string', default: 'real' },
  },
})
const main = fileURLToPath(new URL('../src/cli/main.js', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'proofs-'))
const found = (path: string): string => (existsSync(path) ? path : `${path}.gz`)

const mixtrain = (args: readonly string[], limit: number): Ran => timed([process.execPath, main, ...args], limit)

const [header, ...rows] = readFileSync(given.list, 'utf8').trim().split('\n')
const names = header.split(',')
const instances = rows.map((row) => Object.fromEntries(row.split(',').map((v, i) => [names[i], v])))
const base = join(given.list, '..')
const print = (...cells: readonly (string | number)[]) => process.stdout.write(`| ${cells.join(' | ')} |\n`)

process.stdout.write(`${cpus()[0].model}, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}\n`)
print('family', 'proved', 'search', 'with proof', 'check', 'leaves', 'largest, bytes', 'without a proof')
for (const family of given.families.split(',')) {
  const known = instances.filter((i) => i.family === family && i.verdict === 'unsat')
  const sample = known.filter((_, i) => i % Number(given.each) === 0)
  const total = { proved: 0, search: 0, proof: 0, check: 0, leaves: 0, largest: 0 }
  const failed: string[] = []
  for (const { onnx, vnnlib } of sample) {
    const files = [onnx, vnnlib].map((f) => found(join(base, family, f)))
    const proof = join(folder, 'proof.gz')
    const asked = ['verify', ...files, '--threads', '1', '--timeout', given.timeout, '--semantics', given.semantics]
    const limit = 20 * Number(given.timeout)
    const search = mixtrain(asked, limit)
    if (!search.out.startsWith('unsat')) {
      process.stderr.write(`${family} ${onnx} ${vnnlib}: ${search.out.split('\n')[0]} ${search.err.slice(0, 200)}\n`)
      continue
    }
    rmSync(proof, { force: true })
    const written = mixtrain([...asked, '--proof', proof], limit)
    const where = `${onnx} ${vnnlib}`
    if (!existsSync(proof)) {
      process.stderr.write(`${family} ${where}: no proof ${written.err.slice(-300)}\n`)
      failed.push(where)
      continue
    }
    const checked = mixtrain(['check', proof, '--model', files[0], '--property', files[1], '--json'], limit)
    const { valid, leaves } = checked.out === '' ? {} : JSON.parse(checked.out)
    if (valid !== true) failed.push(where)
    process.stderr.write(
      `${family} ${where}: ${search.cpu.toFixed(1)} ${written.cpu.toFixed(1)} ${checked.cpu.toFixed(1)} s, ${leaves} leaves, ${statSync(proof).size} bytes${valid === true ? '' : ` NOT VALID ${checked.err.slice(0, 200)}`}\n`,
    )
    total.proved++
    total.search += search.cpu
    total.proof += written.cpu
    total.check += checked.cpu
    total.leaves += leaves
    total.largest = Math.max(total.largest, statSync(proof).size)
  }
  const seconds = (s: number) => s.toFixed(1)
  print(
    family,
    `${total.proved} of ${sample.length}`,
    ...[total.search, total.proof, total.check].map(seconds),
    total.leaves,
    total.largest,
    failed.length,
  )
}
rmSync(folder, { recursive: true })
