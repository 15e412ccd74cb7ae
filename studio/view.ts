// Draws a state. Each part is a function of the state alone and is drawn again where what it reads has changed.
import { drawLosses, drawRates } from './chart.ts'
import { aDigit, byId, el, percent, plain, say, signed } from './dom.ts'
import { showIntervals } from './intervals.ts'
import { ABOUT } from './losses.ts'
import { drawChange, drawGrey, drawNothing } from './picture.ts'
import { METHODS, SIDE } from './protocol.ts'
import { type Answer, imageOf, isBusy, type Phase, resumable, type State, seen, TEST_PAGE } from './state.ts'
import { describeOrigin, foundOf, METHOD_NAMES, pageVerdict, shellOf, verdictOf, weakest } from './verdict.ts'

const canvas = (id: string): HTMLCanvasElement => byId<HTMLCanvasElement>(id)
const disable = (id: string, disabled: boolean): void => {
  byId<HTMLButtonElement>(id).disabled = disabled
}

// ---- 1: the digit ------------------------------------------------------------------------------------------------------------

const showPad = ({ pad }: State): void => {
  const at = canvas('pad')
  drawGrey(at, pad.pixels)
  const context = at.getContext('2d')
  if (pad.pen === undefined || context === null) return
  context.fillStyle = pad.pen.down ? 'rgb(255 140 40 / 90%)' : 'rgb(90 130 255 / 80%)'
  context.fillRect(Math.round(pad.pen.x), Math.round(pad.pen.y), 1, 1)
}

const showStrip = ({ test, page, pad }: State, before: State | undefined): void => {
  if (test === undefined) return
  const group = byId('strip')
  const count = test.labels.length
  if (before?.test !== test || before.page !== page) {
    group.replaceChildren(
      ...Array.from({ length: Math.min(TEST_PAGE, count - page) }, (_, i) => {
        const picture = el('canvas', { width: SIDE, height: SIDE, 'aria-hidden': 'true' })
        drawGrey(picture, imageOf(test, page + i))
        const label = `Test image ${page + i}, labelled ${test.labels[page + i]}`
        const about = { type: 'button', role: 'radio', 'aria-label': label, title: label, 'data-index': page + i }
        return el('button', about, picture)
      }),
    )
    say(byId('strip-range'), `${page} – ${Math.min(count, page + TEST_PAGE) - 1}`)
  }
  const within = pad.picked !== undefined && pad.picked >= page && pad.picked < page + TEST_PAGE
  group.querySelectorAll('button').forEach((b, i) => {
    b.setAttribute('aria-checked', String(page + i === pad.picked))
    // One stop of the tab key for the whole group.
    b.tabIndex = (within ? page + i === pad.picked : i === 0) ? 0 : -1
  })
}

// ---- 2: what can happen to it --------------------------------------------------------------------------------------------------

const showQuestion = ({ epsilon, method, label, centre }: State): void => {
  const slider = byId<HTMLInputElement>('epsilon')
  if (Number(slider.value) !== epsilon) slider.value = String(epsilon)
  say(byId('epsilon-value'), epsilon.toFixed(3))
  slider.setAttribute(
    'aria-valuetext',
    `epsilon ${epsilon.toFixed(3)}, ${Math.round(255 * epsilon)} of 255 grey levels`,
  )
  byId<HTMLSelectElement>('method').value = method
  byId<HTMLSelectElement>('label').value = label === undefined ? '' : String(label)
  byId<HTMLInputElement>('centred').checked = centre
}

let spoken: ReturnType<typeof setTimeout> | undefined

const showVerdict = (state: State): void => {
  const { kind, word, why } = pageVerdict(state)
  byId('verdict').className = `verdict ${kind}`
  say(byId('verdict-word'), word)
  say(byId('verdict-why'), why)
  // A moving slider is not read out at every step.
  clearTimeout(spoken)
  if (kind !== 'waiting') spoken = setTimeout(() => say(byId('verdict-live'), `${word}. ${why}`), 600)
}

/** The word and the note under the third picture. */
const attackWords = (answer: Answer | undefined): readonly [string, string] => {
  if (answer === undefined) return ['–', 'no attack']
  if (answer.bounds.verdict === 'certified') return ['none', 'there cannot be one']
  if (answer.bounds.verdict === 'misclassified') return ['–', 'none needed']
  const found = foundOf(answer)
  if (found !== undefined) return [aDigit(found.adversarial.prediction), 'to the network']
  return answer.attack.kind === 'searching' ? ['…', 'searching'] : ['none', 'found by PGD']
}

const showFound = (answer: Answer | undefined, to: HTMLCanvasElement, change?: HTMLCanvasElement): void => {
  const found = foundOf(answer)
  for (const picture of [to, ...(change === undefined ? [] : [change])]) {
    picture.classList.toggle('empty', found === undefined)
    if (found === undefined) drawNothing(picture)
  }
  if (found === undefined) return
  drawGrey(to, found.adversarial.image)
  if (change !== undefined) drawChange(change, found.question.image, found.adversarial.image, found.question.epsilon)
}

const showAnswer = ({ answers: { opened }, scale }: State): void => {
  showFound(opened, canvas('adversarial'), canvas('change'))
  const [word, note] = attackWords(opened)
  say(byId('adversarial-word'), word)
  say(byId('adversarial-note'), note)
  say(byId('seen-word'), opened === undefined ? 'seen' : aDigit(opened.bounds.prediction))
  say(byId('seen-note'), opened === undefined ? 'by the network' : 'as it is')
  if (opened === undefined) return
  const { bounds } = opened
  const reached = bounds.verdict === 'misclassified' ? bounds.prediction : foundOf(opened)?.adversarial.prediction
  showIntervals(bounds, scale, reached)
}

const showProof = ({ proof, answers }: State): void => {
  const busy = proof.stage === 'writing' || proof.stage === 'checking'
  disable('prove', busy || answers.opened?.bounds.verdict !== 'certified')
  byId('prove-text').className = proof.stage === 'none' ? 'muted' : `proof-${proof.stage}`
  say(
    byId('prove-text'),
    proof.text === ''
      ? 'A certified image has a proof that a checker replays in exact arithmetic, without a line of the code that found the bounds.'
      : proof.text,
  )
  const there = proof.stage === 'checked' && proof.proof !== undefined
  byId('save-proof').hidden = !there
  byId('save-network').hidden = !there
}

// ---- comparisons ---------------------------------------------------------------------------------------------------------------

const WORDS = { waiting: '–', certified: 'certified', open: 'undecided', broken: 'broken', misclassified: 'wrong' }

const showCompared = ({ answers, hasNatural, origin, slice }: State): void => {
  byId('pair').hidden = !hasNatural
  const data = origin.kind === 'starter' ? ' of one architecture, trained on the same 2,000 digits' : ''
  say(byId('pair-note'), `The same image, ε and method in two networks${data}.`)
  say(byId('pair-opened-name'), origin.kind === 'starter' ? 'Trained by MixTrain' : 'The network above')
  for (const slot of ['opened', 'natural'] as const) {
    const answer = answers[slot]
    const { kind } = answer === undefined ? { kind: 'waiting' as const } : verdictOf(answer)
    const at = (part: string) => byId(`pair-${slot}-${part}`)
    at('verdict').className = `badge ${kind}`
    say(at('verdict'), answer?.attack.kind === 'searching' ? 'attacking …' : WORDS[kind])
    say(at('prediction'), answer === undefined ? '–' : aDigit(answer.bounds.prediction))
    say(at('margin'), answer === undefined ? '–' : signed(answer.bounds.margin[weakest(answer.bounds)], 2))
    const [word, note] = attackWords(answer)
    say(
      at('attack'),
      answer?.attack.kind === 'found' ? `makes it ${word}` : answer?.attack.kind === 'none' ? 'found nothing' : note,
    )
    showFound(answer, canvas(`pair-${slot}-image`))
    const rates = slice.rates[slot]
    for (const name of ['acc', 'era', 'vra'] as const) say(at(name), percent(rates?.[name] ?? null))
  }
}

const showSlice = ({ slice, phase }: State): void => {
  const { text, about, busy } = slice
  const done =
    about && !busy
      ? `The first ${about.count} test images at ε = ${plain(about.epsilon, 3)}, ${METHOD_NAMES[about.method]}.`
      : ''
  say(byId('slice-text'), busy ? text : done)
  disable('measure', busy || phase === 'starting' || phase === 'down')
}

const showMargins = ({ margins, answers, asked }: State): void => {
  const label = answers.opened?.bounds.label
  const body = byId('margins').querySelector('tbody') as HTMLElement
  byId('margins').classList.toggle('stale', margins.id !== asked)
  body.replaceChildren(
    ...METHODS.map((method) => {
      const bounds = margins.by[method]
      const least = bounds?.margin[weakest(bounds)]
      const cells = Array.from({ length: 10 }, (_, j) => {
        const m = bounds?.margin[j]
        if (m === undefined) return el('td', {}, '…')
        if (j === bounds?.label) return el('td', { class: 'own' }, 'label')
        return el('td', { class: m > 0 ? 'safe' : 'rival' }, signed(m, 1))
      })
      const last = el('td', { class: least === undefined ? '' : least > 0 ? 'safe' : 'rival' })
      last.textContent = least === undefined ? '…' : signed(least, 2)
      const sign = least === undefined ? '' : least > 0 ? ' ✓' : ''
      return el('tr', {}, el('th', { scope: 'row' }, METHOD_NAMES[method] + sign), last, ...cells)
    }),
  )
  say(
    byId('margins-note'),
    label === undefined
      ? ''
      : `Lower bounds of the logit of ${label} minus that of each other class: above 0 everywhere, and the image is certified. The tighter ones cost more.`,
  )
}

const showLayers = ({ layers, method }: State): void => {
  const widest = Math.max(...layers.map(({ meanWidth }) => meanWidth), 1e-9)
  say(
    byId('layers-note'),
    layers.length === 0
      ? 'Computed when the page rests.'
      : `By ${METHOD_NAMES[method]}. A ReLU whose input keeps its sign is exact; those of either sign are what bounds lose by.`,
  )
  byId('layers')
    .querySelector('tbody')
    ?.replaceChildren(
      ...layers.map(({ name, neurons, meanWidth, widest: most, signs }) => {
        const bar = el('i', {})
        bar.style.width = `${Math.max(1, (100 * meanWidth) / widest)}%`
        const open = signs === undefined ? '–' : `${signs.open} (${percent(signs.open / neurons)})`
        return el(
          'tr',
          {},
          el('th', { scope: 'row' }, name),
          el('td', {}, neurons.toLocaleString('en')),
          el('td', {}, meanWidth.toPrecision(3)),
          el('td', { class: 'bar-cell' }, el('div', { 'aria-hidden': 'true' }, bar)),
          el('td', {}, most.toPrecision(3)),
          el('td', {}, open),
        )
      }),
    )
}

// ---- 3: training -----------------------------------------------------------------------------------------------------------------

const START: Readonly<Record<Phase, string>> = {
  starting: 'Start training',
  down: 'Start training',
  running: 'Pause',
  paused: 'Continue',
  stopping: 'Stopping …',
  idle: 'Train again',
}

const showControls = (state: State): void => {
  const { phase, run, machine, settings } = state
  const busy = isBusy(state)
  const go = byId<HTMLButtonElement>('go')
  const idle = resumable(state) ? 'Continue' : run === undefined ? 'Start training' : 'Train again'
  say(go, phase === 'idle' ? idle : START[phase])
  go.disabled = phase === 'starting' || phase === 'down' || phase === 'stopping'
  go.classList.toggle('primary', phase !== 'running')
  byId<HTMLFieldSetElement>('fields').disabled = busy
  const { arxiv, text } = ABOUT[settings.loss]
  const paper = byId<HTMLAnchorElement>('loss-paper')
  paper.hidden = arxiv === undefined
  if (arxiv !== undefined) paper.href = `https://arxiv.org/abs/${arxiv}`
  say(paper, `arXiv:${arxiv}`)
  say(byId('loss-hint'), arxiv === undefined ? text : `: ${text}`)
  byId('k-field').hidden = settings.loss !== 'mixtrain'
  byId('balance-field').hidden = settings.loss === 'natural'
  byId('stop').hidden = !(phase === 'running' || phase === 'paused')
  byId('again').hidden = !(phase === 'idle' && resumable(state))
  byId('run').hidden = run === undefined
  for (const id of ['download', 'open']) disable(id, phase === 'starting' || phase === 'down')
  if (busy) disable('open', true)
  const gpu = byId('device').querySelector<HTMLOptionElement>('option[value=webgpu]')
  if (gpu !== null && machine !== undefined && machine.gpu === undefined) {
    gpu.disabled = true
    gpu.textContent = 'WebGPU (not here)'
  }
}

const showMachine = ({ machine, phase }: State) => {
  if (machine === undefined) return say(byId('machine'), phase === 'down' ? 'not running' : 'Starting …')
  const { threads, isolated, gpu } = machine
  const why = isolated ? '' : ' (this host does not isolate the page, so there is only one)'
  const name = gpu === undefined ? ' · no WebGPU' : ` · WebGPU (${gpu})`
  say(byId('machine'), `WebAssembly, ${threads} thread${threads === 1 ? '' : 's'}${why}${name}`)
}

const showRun = ({ run }: State): void => {
  if (run === undefined) return
  const { history, settings } = run
  const last = history[history.length - 1]
  for (const name of ['acc', 'era', 'vra'] as const) say(byId(name), percent(last?.[name] ?? null))
  drawRates(byId<SVGSVGElement>('rates'), history, settings.epochs)
  drawLosses(byId<SVGSVGElement>('losses'), history, settings.epochs)
  const number = (x: number | null) => (x === null ? '–' : x.toPrecision(3))
  const rows = history.map((h) => {
    const cells = [
      h.epsilon.toFixed(3),
      number(h.naturalLoss),
      number(h.robustLoss),
      percent(h.acc),
      percent(h.era),
      percent(h.vra),
      h.seconds.toFixed(1),
    ]
    return el('tr', {}, el('th', { scope: 'row' }, String(h.epoch + 1)), ...cells.map((c) => el('td', {}, c)))
  })
  byId('epochs-table')
    .querySelector('tbody')
    ?.replaceChildren(...rows)
}

const showProgress = ({ progress: { text, done, total }, device }: State): void => {
  say(byId('progress-text'), text)
  say(byId('run-device'), device)
  const bar = byId<HTMLProgressElement>('progress')
  bar.max = total
  bar.value = done
}

const showNotices = ({ notices }: State): void =>
  byId('notices').replaceChildren(
    ...notices.map(({ level, text, again }) =>
      el(
        'div',
        { class: `notice ${level}` },
        el('p', {}, text),
        ...(again ? [el('button', { type: 'button', 'data-again': '' }, 'Try again')] : []),
        el('button', { type: 'button', class: 'dismiss', 'aria-label': 'Dismiss', 'data-dismiss': text }, '×'),
      ),
    ),
  )

// ---- all of it -------------------------------------------------------------------------------------------------------------------

/** A part, and what of a state it reads. */
const parts: readonly (readonly [(state: State, before: State | undefined) => void, readonly (keyof State)[]])[] = [
  [showPad, ['pad']],
  [showStrip, ['test', 'page', 'pad']],
  [(s) => drawGrey(canvas('seen'), seen(s)), ['pad', 'centre']],
  [showQuestion, ['epsilon', 'method', 'label', 'centre']],
  [showVerdict, ['answers', 'phase', 'pad', 'crashes']],
  [showAnswer, ['answers', 'scale']],
  [(s) => say(byId('radius-result'), s.radius), ['radius']],
  [showProof, ['proof', 'answers']],
  [showCompared, ['answers', 'hasNatural', 'origin', 'slice']],
  [showSlice, ['slice', 'phase']],
  [showMargins, ['margins', 'answers', 'asked']],
  [showLayers, ['layers', 'method']],
  [(s) => say(byId('origin'), s.machine === undefined ? '' : describeOrigin(s.origin)), ['origin', 'machine']],
  [showControls, ['phase', 'run', 'machine', 'settings']],
  [showMachine, ['machine', 'phase']],
  [showRun, ['run']],
  [showProgress, ['progress', 'device']],
  [showNotices, ['notices']],
  [(s) => say(byId('shell'), shellOf(s)), ['pad', 'epsilon', 'method', 'settings']],
]

/** Draws a state, where `before` is what is drawn already. */
export const render = (state: State, before: State | undefined): void => {
  for (const [show, reads] of parts)
    if (before === undefined || reads.some((name) => state[name] !== before[name])) show(state, before)
}
