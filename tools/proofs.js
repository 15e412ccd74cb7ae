// Checks the theorems of proofs/ with Coq and Flocq (Debian: coq, libcoq-flocq), in the order in which the files require each other, and what they
// rest on: nothing but the axioms of Coq's real numbers. Ends with `Proofs: N passed, N failed in N files`, N theorems and lemmas.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const [source, folder] = [join(root, 'proofs'), join(root, 'build', 'proofs')]
const FILES = ['Rounding', 'Sum', 'Bounds', 'Blocks', 'Walk', 'Assumptions']
/** Coq constructs the real numbers with these. */
const REALS = [
  'Classical_Prop.classic',
  'ClassicalDedekindReals.sig_not_dec',
  'ClassicalDedekindReals.sig_forall_dec',
  'FunctionalExtensionality.functional_extensionality_dep',
]

const coq = (...args) => spawnSync('coqc', args, { cwd: folder, encoding: 'utf8' })
if (spawnSync('coqc', ['--version']).error !== undefined) {
  console.log('SKIP proofs: coqc is not installed (Debian: apt-get install coq libcoq-flocq)')
  process.exit(0)
}
rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
let [passed, failed] = [0, 0]
for (const name of FILES) {
  const file = `${name}.v`
  cpSync(join(source, file), join(folder, file))
  const text = readFileSync(join(source, file), 'utf8')
  const { status, stdout, stderr } = coq('-Q', '.', 'Mixtrain', file)
  const axioms = [...stdout.matchAll(/^([A-Za-z_][\w.]*)\s*(?::|$)/gm)].map(([, axiom]) => axiom)
  const foreign = axioms.filter((axiom) => axiom !== 'Axioms' && !REALS.includes(axiom))
  const left = /\b(?:Admitted|admit|Axiom|Parameter|Conjecture)\b/.exec(text)?.[0]
  if (status !== 0) console.log(`${file}: ${stderr}`)
  if (left !== undefined) console.log(`${file}: ${left}`)
  if (foreign.length > 0) console.log(`${file}: rests on ${[...new Set(foreign)].join(', ')}`)
  const fine = status === 0 && left === undefined && foreign.length === 0
  passed += fine ? [...text.matchAll(/^(?:Theorem|Lemma) /gm)].length : 0
  failed += fine ? 0 : 1
}
console.log(`Proofs: ${passed} passed, ${failed} failed in ${FILES.length} files`)
process.exit(failed === 0 ? 0 : 1)
