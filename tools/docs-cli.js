// The parts of docs/ that are made from records: the command line from those of the commands, the table of ops from those of the ops.
//
//   node tools/docs-cli.js [--check]
//
// Writes docs/command-line.md and the table in docs/rounding.md; with --check it writes nothing, and fails if they are not what it would write.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { commands } from '../dist/src/cli/commands.js'
import { common } from '../dist/src/cli/options.js'
import { registry } from '../dist/src/ops/index.js'

const file = (path) => fileURLToPath(new URL(`../docs/${path}`, import.meta.url))
const cell = (text) => text.replaceAll('|', '\\|').replaceAll('\n', ' ')
const table = (head, rows) => [head, head.map(() => '---'), ...rows].map((r) => `| ${r.join(' | ')} |`).join('\n')
const optionRows = (options) => Object.values(options).map(({ flags, about }) => [`\`${cell(flags)}\``, cell(about)])

// ---- commands ---------------------------------------------------------------------------------------------------------

const sectionOf = ({ name, summary, description, takes, optional = [], rest = false, options, examples }) => {
  const names = Object.keys(takes)
  const word = (n, i) => (rest && i === names.length - 1 ? `${n}...` : n)
  const usage = [
    name,
    ...names.map((n, i) => (optional.includes(n) ? `[${word(n, i)}]` : word(n, i))),
    '[options]',
  ].join(' ')
  const rows = optionRows(options)
  return [
    `## ${name}`,
    `\`mixtrain ${usage}\`: ${summary}.`,
    description,
    ...(names.length === 0
      ? []
      : [
          table(
            ['argument', ''],
            names.map((n) => [n, cell(takes[n])]),
          ),
        ]),
    ...(rows.length === 0 ? [] : [table(['option', ''], rows)]),
    `\`\`\`\n${examples.join('\n')}\n\`\`\``,
  ].join('\n\n')
}

const commandLine = `${[
  '# Command line',
  'This page is made from the records of the commands by `npm run docs:cli`; `mixtrain help COMMAND` prints the same.',
  'Standard output has the result, standard error progress and remarks. Exit code: 0 success, 1 failure, 2 wrong usage, 128 and the number of the signal for an interruption (130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP). MODEL is a safetensors file that mixtrain wrote, or an ONNX file of any common exporter.',
  table(
    ['command', ''],
    commands.map(({ command }) => [`[${command.name}](#${command.name})`, cell(command.summary)]),
  ),
  ...commands.map(({ command }) => sectionOf(command)),
  '## Options of every command',
  table(['option', ''], optionRows(common)),
].join('\n\n')}\n`

// ---- ops --------------------------------------------------------------------------------------------------------------

/** Ops that only coefficients, bounds and gradients are made of. */
const within = ['splitMul', 'absMul', 'up', 'down', 'conv2dInput', 'conv2dWeight', 'compact', 'scatterAdd', 'fold']

const linesOf = ({ relax }) => {
  if (relax === 'linear') return 'linear'
  if (typeof relax === 'function' || 'relax' in relax) return 'lines'
  if ('bilinear' in relax)
    return typeof relax.bilinear === 'object' ? 'bilinear' : 'bilinear, lines for two that depend on the input'
  return 'definition' in relax ? 'those of its definition' : 'no'
}
const outwardOf = ({ outward, relax }) => {
  if (outward === undefined)
    return typeof relax === 'object' && 'definition' in relax ? 'that of its definition' : '**refused**'
  const kind = typeof outward.interval === 'string' ? outward.interval : 'own'
  const smooth = outward.ulps === undefined ? '' : `, ${outward.ulps} units in the last place`
  const both = typeof relax === 'object' && 'bilinear' in relax && typeof relax.bilinear === 'function'
  return `${kind}${smooth}${both && outward.relax === undefined ? '; two that depend on the input: **refused**' : ''}`
}
const ops = table(
  ['op', 'lines', 'outward'],
  registry.filter(({ name }) => !within.includes(name)).map((op) => [`\`${op.name}\``, linesOf(op), outwardOf(op)]),
)
const withOps = (text) => text.replace(/<!-- ops -->[\s\S]*<!-- \/ops -->/, () => `<!-- ops -->\n${ops}\n<!-- /ops -->`)

// ---- pages ------------------------------------------------------------------------------------------------------------

const pages = {
  'command-line.md': () => commandLine,
  'rounding.md': withOps,
}
const read = (path) => {
  try {
    return readFileSync(file(path), 'utf8')
  } catch {
    return ''
  }
}
const stale = Object.entries(pages).filter(([path, page]) => page(read(path)) !== read(path))
if (process.argv.includes('--check')) {
  for (const [path] of stale) console.error(`docs/${path} is not current: run npm run docs:cli`)
  process.exitCode = stale.length === 0 ? 0 : 1
} else for (const [path, page] of stale) writeFileSync(file(path), page(read(path)))
