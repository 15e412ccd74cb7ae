import type { EpochRecord } from '../../train/fit.ts'
import { type Chart, COLOURS, drawn, escaped } from './chart.ts'

/** What became of an image under attack, as pictures. */
interface Broken {
  readonly image: number
  readonly label: number
  readonly becomes: number
  /** Data URIs: the image, the change, what the attack found. */
  readonly pictures: readonly [string, string, string]
}

/** What was measured of a run's model for the report. */
export interface Measured {
  readonly data: string
  /** What one example of the data is called. */
  readonly noun: 'image' | 'row'
  readonly count: number
  readonly epsilon: number
  readonly method: string
  readonly attack: string
  /** Of the classes. */
  readonly names: readonly string[]
  /** By class: images, and those that are correct, robust, verified. */
  readonly classes: readonly {
    readonly count: number
    readonly correct: number
    readonly robust: number
    readonly verified: number
  }[]
  /** Rows: labels; columns: what the attack made of them, or what the model says where it broke nothing. */
  readonly confusion: readonly (readonly number[])[]
  readonly radii: readonly { readonly epsilon: number; readonly acc: number; readonly vra: number }[]
  /** Verified images whose least margin is nearest to 0, and those that miss it by least. */
  readonly nearest: readonly {
    readonly image: number
    readonly label: number
    readonly margin: number
    readonly picture: string | undefined
  }[]
  readonly broken: readonly Broken[]
}

export interface ReportedRun {
  readonly name: string
  readonly history: readonly EpochRecord[]
  readonly settings: Readonly<Record<string, unknown>>
  /** Of the run's own report on its test images; null where it was not finished. */
  readonly final: {
    readonly acc: number
    readonly era: number | null
    readonly vra: number
    readonly count: number
  } | null
  readonly measured: Measured | undefined
}

const percent = (x: number | null, of = 1): string =>
  x === null || of === 0 ? '-' : `${((100 * x) / of).toFixed(1)} %`

const table = (head: readonly string[], rows: readonly (readonly string[])[], kind = ''): string =>
  `<div class="wide"><table${kind}><thead><tr>${head.map((h) => `<th scope="col">${h}</th>`).join('')}</tr></thead><tbody>${rows
    .map(
      (row) =>
        `<tr>${row.map((cell, i) => (i === 0 ? `<th scope="row">${cell}</th>` : `<td>${cell}</td>`)).join('')}</tr>`,
    )
    .join('')}</tbody></table></div>`

const swatch = (i: number): string => `<span class="swatch c${i % COLOURS}"></span>`

/** Curves of all runs over each other; epochs are counted from 1. */
const curves = (runs: readonly ReportedRun[]): string => {
  const chart = (title: string, value: (r: EpochRecord) => number | null, free = false): Chart => ({
    title,
    x: 'epoch',
    whole: true,
    free,
    lines: runs.map(({ name, history }) => ({
      label: name,
      points: history.map((r) => [r.epoch + 1, value(r)] as const),
    })),
  })
  const charts = [
    chart('ACC, held out', (r) => r.acc),
    chart('ERA', (r) => r.era),
    chart('VRA', (r) => r.vra),
    chart('loss', (r) => r.loss ?? r.naturalLoss, true),
  ].map(drawn)
  return `<div class="charts">${charts.join('')}</div>`
}

const overview = (runs: readonly ReportedRun[]): string => {
  const of = ({ settings }: ReportedRun, key: string) => escaped(String(settings[key] ?? '-'))
  return table(
    ['run', 'loss', 'network', 'epsilon', 'epochs', 'ACC', 'ERA', 'VRA', 'tested on', 'training'],
    runs.map((run, i) => [
      `${swatch(i)}${escaped(run.name)}`,
      ...['loss', 'network', 'epsilon'].map((key) => of(run, key)),
      `${run.history.length} of ${of(run, 'epochs')}`,
      ...[run.final?.acc ?? null, run.final?.era ?? null, run.final?.vra ?? null].map((v) => percent(v)),
      String(run.final?.count ?? '-'),
      `${run.history.reduce((s, r) => s + r.seconds, 0).toFixed(1)} s`,
    ]),
  )
}

const perClass = ({ classes, names, noun }: Measured): string =>
  table(
    ['class', `${noun}s`, 'ACC', 'ERA', 'VRA'],
    classes.map((c, i) => [
      escaped(names[i]),
      String(c.count),
      ...[c.correct, c.robust, c.verified].map((n) => percent(n, c.count)),
    ]),
  )

const confusionOf = ({ confusion, names }: Measured): string => {
  const most = Math.max(1, ...confusion.flatMap((row, i) => row.filter((_, j) => j !== i)))
  const rows = confusion.map(
    (row, i) =>
      `<tr><th scope="row">${escaped(names[i])}</th>${row
        .map(
          (n, j) =>
            `<td${i === j ? ' class="own"' : ` style="--share: ${(n / most).toFixed(2)}"`}>${n === 0 ? '' : n}</td>`,
        )
        .join('')}</tr>`,
  )
  return `<div class="wide"><table class="confusion"><thead><tr><th scope="col">label</th>${names.map((name) => `<th scope="col">${escaped(name)}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`
}

const shown = (uri: string, about: string): string => `<img src="${uri}" alt="${escaped(about)}" width="84">`

const brokenOf = ({ broken, epsilon, names }: Measured): string =>
  broken.length === 0
    ? '<p>The attack broke no image that can be shown.</p>'
    : `<ul class="broken">${broken
        .map(
          ({ image, label, becomes, pictures: [from, by, to] }) =>
            `<li>${shown(from, `test image ${image}, class ${names[label]}`)}${shown(by, `the change, within ${epsilon} in each pixel`)}${shown(to, `what is taken for class ${names[becomes]}`)}<div>image ${image}: ${escaped(names[label])} becomes ${escaped(names[becomes])}</div></li>`,
        )
        .join('')}</ul>`

const nearestOf = ({ nearest, names, noun }: Measured): string =>
  nearest.length === 0
    ? `<p>No ${noun} is classified correctly.</p>`
    : `<ul class="broken">${nearest
        .map(
          ({ image, label, margin, picture }) =>
            `<li>${picture === undefined ? '' : shown(picture, `test image ${image}, class ${names[label]}`)}<div>${noun} ${image}, ${escaped(names[label])}: ${margin > 0 ? 'verified, margin at least' : 'open, margin bound'} ${margin.toPrecision(3)}</div></li>`,
        )
        .join('')}</ul>`

const settingsOf = (settings: ReportedRun['settings']): string =>
  table(
    ['setting', 'value'],
    Object.entries(settings).map(([key, value]) => [
      escaped(key),
      escaped(typeof value === 'string' ? value : JSON.stringify(value)),
    ]),
  )

const section = ({ name, measured, settings }: ReportedRun, i: number): string =>
  `<section><h2>${swatch(i)}${escaped(name)}</h2>${
    measured === undefined
      ? '<p>There is no model here: the run is not finished.</p>'
      : `<p>The first ${measured.count} test ${measured.noun}s of ${escaped(measured.data)}, epsilon ${measured.epsilon}; ERA under ${escaped(measured.attack)}; VRA by ${escaped(measured.method)} bounds.</p>
<div class="two"><div><h3>By class</h3>${perClass(measured)}</div><div><h3>Confusion under attack</h3>${confusionOf(measured)}</div></div>
${measured.noun === 'row' ? '' : `<h3>Broken by the attack</h3>${brokenOf(measured)}\n`}<h3>Nearest to the border</h3><p>The ${measured.noun}s whose least margin bound is nearest to 0: verified above it, open below.</p>${nearestOf(measured)}`
  }<details><summary>Settings</summary>${settingsOf(settings)}</details></section>`

const STYLE = `
:root { color-scheme: light dark; --ink: #1d1d1f; --faint: #62666d; --paper: #fff; --card: #f6f7f8; --grid: #dfe2e6; --hot: 200, 60, 20;
  --l0: #0b63c5; --l1: #c2410c; --l2: #15803d; --l3: #7c3aed; --l4: #b0146c; --l5: #5b5b16 }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --faint: #a2a7b0; --paper: #16171a; --card: #1f2125; --grid: #383c43; --hot: 240, 120, 70;
  --l0: #6cb0ff; --l1: #ff9a62; --l2: #65d18a; --l3: #bb9bff; --l4: #ff7fbf; --l5: #d6d36a } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.6rem; margin: 0 0 .3rem } h2 { margin-top: 2.5rem; font-size: 1.25rem } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
p { margin: .3rem 0; color: var(--faint) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } .wide { overflow-x: auto }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap }
th[scope=row], th[scope=col]:first-child { text-align: left } thead th { color: var(--faint); font-weight: 500 } tbody th { font-weight: 500 }
details td { text-align: left; white-space: normal; overflow-wrap: anywhere } summary { cursor: pointer; margin-top: 1.2rem }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem; margin: 1.2rem 0 }
figure { margin: 0; background: var(--card); border-radius: .5rem; padding: .6rem } figcaption { font-weight: 500; padding: 0 .3rem .2rem }
svg { width: 100%; height: auto; display: block } svg text { fill: var(--faint); font: 11px system-ui, sans-serif }
.grid { stroke: var(--grid) } .line { fill: none; stroke-width: 2; stroke-linejoin: round } .swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .45em }
${Array.from({ length: COLOURS }, (_, i) => `.line.c${i} { stroke: var(--l${i}) } .dot.c${i} { fill: var(--l${i}) } .swatch.c${i} { background: var(--l${i}) }`).join('\n')}
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.5rem }
.confusion td { text-align: center; min-width: 1.3rem; padding: .25rem .3rem; background: rgba(var(--hot), calc(var(--share, 0) * .55)) } .confusion .own { color: var(--faint) }
.broken { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem } .broken li { background: var(--card); border-radius: .5rem; padding: .5rem; font-size: .85rem }
.broken img { image-rendering: pixelated; margin-right: .25rem }
@media (max-width: 30rem) { .broken { gap: .5rem } .broken img { width: 56px } }
`

/** The report of some runs as one HTML page that needs nothing else. */
export const pageOf = (runs: readonly ReportedRun[], made: string): string => {
  const over: Chart = {
    title: 'VRA over epsilon',
    x: 'epsilon',
    lines: runs.map(({ name, measured }) => ({
      label: name,
      points: (measured?.radii ?? []).map(({ epsilon, vra }) => [epsilon, vra] as const),
    })),
  }
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>mixtrain report: ${escaped(runs.map(({ name }) => name).join(', '))}</title><style>${STYLE}</style></head>
<body><main><h1>Training report</h1><p>${escaped(made)}</p>
<h2>Runs</h2>${overview(runs)}
<p>ACC: classified correctly. ERA: still so under an attack. VRA: proved for every input within epsilon. VRA &le; ERA &le; ACC.</p>
<h2>Curves</h2><p>${runs.map(({ name }, i) => `${swatch(i)}${escaped(name)}`).join(' &nbsp; ')}</p>${curves(runs)}
${runs.some(({ measured }) => measured !== undefined) ? `<div class="charts">${drawn(over)}</div>` : ''}
${runs.map(section).join('\n')}
</main></body></html>
`
}
