// The page: draws what the worker posts, and posts what a person asks for.
import type { Checkpoint, EpochRecord, MethodName } from '../src/index.ts'
import { drawLosses, drawRates } from './chart.ts'
import { type Client, connect } from './client.ts'
import { aDigit, byId, el, percent, plain, say, signed } from './dom.ts'
import { intervals } from './intervals.ts'
import { pad as makePad } from './pad.ts'
import { centred, drawChange, drawGrey, drawNothing } from './picture.ts'
import {
  type Adversarial,
  type Bounds,
  CLASSES,
  type DeviceChoice,
  type FromWorker,
  type Origin,
  PIXELS,
  type Question,
  type TrainSettings,
} from './protocol.ts'
import { imageOf, strip, type TestImages } from './strip.ts'

// ---- notices ----------------------------------------------------------------------------------------------------------

type Level = 'info' | 'warning' | 'error'
const notices = byId('notices')

const notify = (level: Level, text: string, action?: { readonly label: string; readonly run: () => void }): void => {
  if ([...notices.children].some((n) => n.firstElementChild?.textContent === text)) return
  const note = el('div', { class: `notice ${level}` }, el('p', {}, text))
  if (action !== undefined) {
    const button = el('button', { type: 'button' }, action.label)
    button.addEventListener('click', () => {
      note.remove()
      action.run()
    })
    note.append(button)
  }
  const dismiss = el('button', { type: 'button', class: 'dismiss', 'aria-label': 'Dismiss' }, '×')
  dismiss.addEventListener('click', () => note.remove())
  note.append(dismiss)
  notices.append(note)
  while (notices.children.length > 3) notices.firstElementChild?.remove()
}

// ---- state --------------------------------------------------------------------------------------------------------------

/** `down`: there is no worker. */
type Phase = 'starting' | 'idle' | 'running' | 'paused' | 'stopping' | 'down'

interface Run {
  readonly settings: TrainSettings
  readonly history: readonly EpochRecord[]
  readonly checkpoint: Checkpoint | undefined
}

let phase: Phase = 'starting'
let client: Client | undefined
let run: Run | undefined
interface ModelFile {
  readonly name: string
  readonly bytes: Uint8Array<ArrayBuffer>
}
/** The file that the network came from, and the one that the worker was last asked to open. */
let opened: ModelFile | undefined
let opening: ModelFile | undefined
let origin: Origin = { kind: 'untrained' }
let test: TestImages | undefined
/** Test image on the pad, untouched. */
let picked: number | undefined
/** The pen was used since the pad was cleared or an image was picked. */
let drawn = false
let crashes: readonly number[] = []

const finished = (): boolean => run !== undefined && run.history.length >= run.settings.epochs
const resumable = (): boolean => run?.checkpoint !== undefined && !finished()

// ---- the question, and its answer ------------------------------------------------------------------------------------------

const slider = byId<HTMLInputElement>('epsilon')
const methodSelect = byId<HTMLSelectElement>('method')
const labelSelect = byId<HTMLSelectElement>('label')
const centredBox = byId<HTMLInputElement>('centred')
for (let j = 0; j < CLASSES; j++) labelSelect.append(el('option', { value: j }, String(j)))

const bars = intervals()
const pictures = {
  seen: byId<HTMLCanvasElement>('seen'),
  change: byId<HTMLCanvasElement>('change'),
  adversarial: byId<HTMLCanvasElement>('adversarial'),
}

let lastId = 0
/** Questions that were asked and not answered yet, by number. */
const waiting = new Map<number, Question>()
/** What is shown, and what was asked for it. */
let answered: { readonly id: number; readonly question: Question; readonly bounds: Bounds } | undefined

const seen = (): Float32Array => (drawn && centredBox.checked ? centred(pad.pixels()) : pad.pixels())

const ask = () => {
  const epsilon = Number(slider.value)
  say(byId('epsilon-value'), epsilon.toFixed(3))
  slider.setAttribute(
    'aria-valuetext',
    `epsilon ${epsilon.toFixed(3)}, ${Math.round(255 * epsilon)} of 255 grey levels`,
  )
  say(byId('radius-result'), '')
  const image = seen()
  drawGrey(pictures.seen, image)
  showShell()
  if (phase === 'starting' || phase === 'down' || client === undefined) return
  if (image.every((v) => v === 0)) return showEmpty()
  const question: Question = {
    image,
    label: labelSelect.value === '' ? undefined : Number(labelSelect.value),
    epsilon,
    method: methodSelect.value as MethodName,
  }
  waiting.set(++lastId, question)
  client.send({ type: 'inspect', id: lastId, question })
}

const verdict = byId('verdict')
let spoken: ReturnType<typeof setTimeout> | undefined

const judge = (
  kind: 'waiting' | 'certified' | 'open' | 'broken' | 'misclassified',
  word: string,
  why: string,
): void => {
  verdict.className = `verdict ${kind}`
  say(byId('verdict-word'), word)
  say(byId('verdict-why'), why)
  // A moving slider is not read out at every step.
  clearTimeout(spoken)
  if (kind !== 'waiting') spoken = setTimeout(() => say(byId('verdict-live'), `${word}. ${why}`), 600)
}

const noAttack = (word: string, note: string): void => {
  for (const picture of [pictures.change, pictures.adversarial]) {
    drawNothing(picture)
    picture.classList.add('empty')
  }
  bars.mark(undefined)
  say(byId('adversarial-word'), word)
  say(byId('adversarial-note'), note)
}

const showEmpty = (): void => {
  waiting.clear()
  answered = undefined
  judge('waiting', 'The pad is empty', 'Draw a digit, or pick a test image.')
  say(byId('seen-word'), 'seen')
  say(byId('seen-note'), 'by the network')
  noAttack('–', 'no attack')
}

const weakest = ({ margin, label }: Bounds): number =>
  margin.reduce((worst, m, j) => (j !== label && (worst === label || !(m >= margin[worst])) ? j : worst), label)

/** Answers come in order, but not to every question: while a slider moves, the worker takes the latest. */
const showBounds = (id: number, b: Bounds): void => {
  const question = waiting.get(id)
  if (question === undefined) return
  for (const older of [...waiting.keys()].filter((k) => k <= id)) waiting.delete(older)
  answered = { id, question, bounds: b }
  bars.show(b)
  say(byId('seen-word'), aDigit(b.prediction))
  say(byId('seen-note'), 'as it is')
  const rival = weakest(b)
  const margin = `${signed(b.margin[rival], 3)} against ${rival}`
  const epsilon = plain(question.epsilon, 3)
  if (b.verdict === 'certified') {
    judge(
      'certified',
      `Certified: ${aDigit(b.label)}`,
      `No change of up to ${epsilon} per pixel makes it anything else. The smallest margin is at least ${margin}.`,
    )
    noAttack('none', 'there cannot be one')
  } else if (b.verdict === 'misclassified') {
    judge(
      'misclassified',
      `Misclassified: taken for ${aDigit(b.prediction)}`,
      `It should be ${aDigit(b.label)}. Without any change the network is wrong already.`,
    )
    noAttack('–', 'none needed')
    bars.mark(b.prediction)
  } else if (verdict.classList.contains('broken')) {
    // The attack on the new question is on its way; until then the last one stays in view.
    judge('broken', 'Not certified', `The smallest margin may be as low as ${margin}. Attacking …`)
  } else {
    judge('open', 'Not certified', `The smallest margin may be as low as ${margin}. Attacking …`)
    noAttack('…', 'searching')
  }
}

const showAttack = (id: number, found: Adversarial | undefined) => {
  if (answered === undefined || answered.id !== id) return
  const { bounds: b, question } = answered
  const rival = weakest(b)
  const margin = `${signed(b.margin[rival], 3)} against ${rival}`
  if (found === undefined) {
    judge(
      'open',
      'Not certified',
      `The bound on the smallest margin is ${margin}, but an attack found nothing either: undecided.`,
    )
    return noAttack('none', 'found by PGD')
  }
  judge(
    'broken',
    `Not certified: it can become ${aDigit(found.prediction)}`,
    `An attack found an image in the box that is taken for ${aDigit(found.prediction)}. The smallest margin may be as low as ${margin}.`,
  )
  for (const picture of [pictures.change, pictures.adversarial]) picture.classList.remove('empty')
  bars.mark(found.prediction)
  drawGrey(pictures.adversarial, found.image)
  drawChange(pictures.change, question.image, found.image, question.epsilon)
  say(byId('adversarial-word'), aDigit(found.prediction))
  say(byId('adversarial-note'), 'to the network')
}

const pad = makePad(byId<HTMLCanvasElement>('pad'), (change) => {
  choose(undefined)
  // A test image that is moved or drawn upon is no longer that test image, but it keeps its place and label.
  if (change === 'cleared') {
    drawn = false
    labelSelect.value = ''
  } else if (change === 'drawn' && picked === undefined && !pickedOnPad) drawn = true
  if (change === 'cleared') pickedOnPad = false
  picked = undefined
  ask()
})
/** What is on the pad began as a test image: it is centred already. */
let pickedOnPad = false
let choose: (index: number | undefined) => void = () => undefined

const pick = (index: number): void => {
  if (test === undefined) return
  picked = index
  pickedOnPad = true
  drawn = false
  pad.show(imageOf(test, index))
  labelSelect.value = String(test.labels[index])
  ask()
}

byId('clear').addEventListener('click', () => pad.clear())
slider.addEventListener('input', ask)
methodSelect.addEventListener('change', ask)
labelSelect.addEventListener('change', ask)
centredBox.addEventListener('change', ask)
byId('radius').addEventListener('click', () => {
  if (answered === undefined) return
  const { question, bounds } = answered
  if (bounds.verdict === 'misclassified') return say(byId('radius-result'), 'none: it is misclassified')
  say(byId('radius-result'), 'searching …')
  client?.send({ type: 'radius', id: lastId, question: { ...question, label: bounds.label } })
})

// ---- the model --------------------------------------------------------------------------------------------------------------

const describe = (o: Origin): string => {
  switch (o.kind) {
    case 'untrained':
      return 'The network is untrained: its weights are random. Train it to see the bounds shrink.'
    case 'starter':
      return `The network: a small starter, trained by MixTrain for ε = ${o.epsilon}.`
    case 'trained':
      return `The network: yours, after epoch ${o.epochs} of ${o.of}, trained for ε = ${o.epsilon}.`
    case 'file':
      return `The network: ${o.network} from ${o.name}${o.epsilon === undefined ? '' : `, trained for ε = ${o.epsilon}`}.`
    default:
      return o satisfies never
  }
}

const showShell = (): void => {
  const [epsilon, method] = [Number(slider.value), methodSelect.value]
  const train = settingsNow()
  const bounds =
    picked === undefined
      ? '# bounds: pick an untouched test image'
      : `mixtrain bounds mixtrain-small.safetensors \\\n  --index ${picked} --epsilon ${epsilon} --method ${method}`
  const rest = train.images < 5000 ? ' \\\n  --batch-size 20 --k 2' : ''
  say(
    byId('shell'),
    `${bounds}\n\nmixtrain train --limit ${train.images} \\\n  --epochs ${train.epochs} --epsilon ${train.epsilon}${rest}`,
  )
}

byId('download').addEventListener('click', () => {
  if (opened === undefined) client?.send({ type: 'export' })
  else save(opened.name, opened.bytes)
})
const file = byId<HTMLInputElement>('file')
byId('open').addEventListener('click', () => file.click())
file.addEventListener('change', async () => {
  const [chosen] = file.files ?? []
  file.value = ''
  if (chosen === undefined) return
  try {
    opening = { name: chosen.name, bytes: new Uint8Array(await chosen.arrayBuffer()) }
    client?.send({ type: 'load', ...opening })
  } catch (e) {
    notify('error', `Not opened: ${e instanceof Error ? e.message : String(e)}`)
  }
})

const save = (name: string, bytes: Uint8Array<ArrayBuffer>): void => {
  const url = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }))
  el('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}

// ---- training ----------------------------------------------------------------------------------------------------------------

const form = byId<HTMLFormElement>('settings')
const fields = byId<HTMLFieldSetElement>('fields')
const inputs = {
  images: byId<HTMLSelectElement>('images'),
  epochs: byId<HTMLInputElement>('epochs'),
  epsilon: byId<HTMLInputElement>('train-epsilon'),
  device: byId<HTMLSelectElement>('device'),
}
const [go, stop, again] = ['go', 'stop', 'again'].map((id) => byId<HTMLButtonElement>(id))

const settingsNow = (): TrainSettings => ({
  device: inputs.device.value as DeviceChoice,
  epsilon: Number(inputs.epsilon.value),
  epochs: Math.max(1, Math.round(Number(inputs.epochs.value))),
  images: Number(inputs.images.value),
  seed: 0,
})

const shows = (): void => {
  const busy = phase === 'running' || phase === 'paused' || phase === 'stopping'
  const labels: Readonly<Record<Phase, string>> = {
    starting: 'Start training',
    down: 'Start training',
    running: 'Pause',
    paused: 'Continue',
    stopping: 'Stopping …',
    idle: resumable() ? 'Continue' : run === undefined ? 'Start training' : 'Train again',
  }
  say(go, labels[phase])
  go.disabled = phase === 'starting' || phase === 'down' || phase === 'stopping'
  go.classList.toggle('primary', phase !== 'running')
  fields.disabled = busy
  stop.hidden = !(phase === 'running' || phase === 'paused')
  again.hidden = !(phase === 'idle' && resumable())
  byId('run').hidden = run === undefined
  for (const id of ['download', 'open']) byId<HTMLButtonElement>(id).disabled = phase === 'starting' || phase === 'down'
  byId<HTMLButtonElement>('open').disabled ||= busy
}

const enter = (next: Phase): void => {
  phase = next
  shows()
}

const showRun = (): void => {
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

const told = (text: string, done: number, total: number): void => {
  say(byId('progress-text'), text)
  const bar = byId<HTMLProgressElement>('progress')
  bar.max = total
  bar.value = done
}

const begin = (settings: TrainSettings, resume: Checkpoint | undefined): void => {
  run = { settings, history: resume?.history ?? [], checkpoint: resume }
  told('Preparing …', 0, 1)
  say(byId('run-device'), '')
  showRun()
  enter('running')
  client?.send({ type: 'train', settings, resume })
}

form.addEventListener('input', showShell)
form.addEventListener('submit', (e) => {
  e.preventDefault()
  if (phase === 'running') {
    client?.send({ type: 'pause' })
    enter('paused')
  } else if (phase === 'paused') {
    client?.send({ type: 'continue' })
    enter('running')
  } else if (phase === 'idle') {
    if (run !== undefined && resumable()) begin(run.settings, run.checkpoint)
    else begin(settingsNow(), undefined)
  }
})
stop.addEventListener('click', () => {
  client?.send({ type: 'stop' })
  enter('stopping')
})
again.addEventListener('click', () => {
  if (!form.reportValidity()) return
  begin(settingsNow(), undefined)
  go.focus()
})

const showProgress = (m: Extract<FromWorker, { type: 'progress' }>): void => {
  if (run === undefined || phase === 'stopping') return
  const { epochs } = run.settings
  const doing =
    m.phase === 'preparing'
      ? 'preparing'
      : `${m.phase} ${m.done}/${m.total}${m.phase === 'training' ? ' steps' : ' images'}`
  // Measuring an epoch takes about as long as a fifth of it.
  const within =
    m.phase === 'preparing' ? 0 : m.phase === 'training' ? (0.8 * m.done) / m.total : 0.8 + (0.2 * m.done) / m.total
  told(`Epoch ${m.epoch + 1} of ${epochs}: ${doing}`, m.epoch + within, epochs)
}

const ended = (why: 'finished' | 'stopped' | 'failed', message: string | undefined): void => {
  const epochs = run?.history.length ?? 0
  if (why === 'failed') notify('error', `Training stopped: ${message}`)
  const done = why === 'finished' ? 'Finished' : why === 'stopped' ? 'Stopped' : 'Failed'
  told(`${done} after ${epochs} epoch${epochs === 1 ? '' : 's'}`, epochs, run?.settings.epochs ?? 1)
  enter('idle')
  // The button that had the focus is gone.
  if (why === 'stopped' && document.activeElement === document.body) go.focus({ preventScroll: true })
}

// ---- the worker ----------------------------------------------------------------------------------------------------------------

const ready = (m: Extract<FromWorker, { type: 'ready' }>): void => {
  const threads = `${m.threads} thread${m.threads === 1 ? '' : 's'}`
  const why = m.isolated ? '' : ' (this host does not isolate the page, so there is only one)'
  say(byId('machine'), `WebAssembly, ${threads}${why}${m.gpu === undefined ? ' · no WebGPU' : ` · WebGPU (${m.gpu})`}`)
  const gpu = inputs.device.querySelector<HTMLOptionElement>('option[value=webgpu]')
  if (gpu !== null && m.gpu === undefined) {
    gpu.disabled = true
    gpu.textContent = 'WebGPU (not here)'
  }
  const first = test === undefined
  enter('idle')
  if (first) {
    test = { images: m.images, labels: m.labels }
    choose = strip(test, pick).choose
    // Nobody drew while the network was loading: something to look at.
    if (pad.pixels().every((v) => v === 0)) {
      choose(0)
      pick(0)
    }
  } else if (opened !== undefined) client?.send({ type: 'load', ...opened })
  else if (run?.checkpoint !== undefined)
    client?.send({ type: 'restore', checkpoint: run.checkpoint, settings: run.settings })
  else ask()
}

const received = (m: FromWorker) => {
  switch (m.type) {
    case 'ready':
      return ready(m)
    case 'model':
      origin = m.origin
      opened = origin.kind === 'file' ? opening : undefined
      say(byId('origin'), describe(origin))
      return ask()
    case 'training':
      return say(byId('run-device'), m.text)
    case 'progress':
      return showProgress(m)
    case 'epoch':
      if (run === undefined) return
      run = { ...run, history: m.checkpoint.history, checkpoint: m.checkpoint }
      return showRun()
    case 'ended':
      return ended(m.why, m.message)
    case 'bounds':
      return showBounds(m.id, m.bounds)
    case 'attacked':
      return showAttack(m.id, m.adversarial)
    case 'radius':
      if (m.id === lastId) say(byId('radius-result'), `ε = ${m.epsilon.toFixed(3)}${m.epsilon === 0 ? ': none' : ''}`)
      return
    case 'exported':
      return save(m.name, m.bytes)
    case 'notice':
      return notify(m.level, m.text)
    default:
      return m satisfies never
  }
}

const crashed = (why: string): void => {
  const before = phase
  client = undefined
  enter('down')
  crashes = [...crashes.filter((t) => performance.now() - t < 60_000), performance.now()]
  judge('waiting', 'The worker stopped', 'Bounds come back when it runs again.')
  if (before === 'starting' || crashes.length > 3) {
    say(byId('machine'), 'not running')
    notify('error', `The worker that computes does not run: ${why}.`, { label: 'Try again', run: launch })
    return
  }
  const lost = before === 'running' || before === 'paused' || before === 'stopping'
  const epochs = run?.history.length ?? 0
  if (lost) told(`Interrupted after ${epochs} epoch${epochs === 1 ? '' : 's'}`, epochs, run?.settings.epochs ?? 1)
  if (run?.checkpoint === undefined) run = undefined
  const rest = lost
    ? epochs > 0
      ? ` Press Continue to go on after epoch ${epochs}.`
      : ' Training can be started again.'
    : ''
  notify('warning', `The worker stopped (${why}) and was started again.${rest}`)
  launch()
}

const launch = (): void => {
  enter('starting')
  client = connect(received, crashed)
}

noAttack('–', 'no attack')
drawGrey(pictures.seen, new Float32Array(PIXELS))
showShell()
launch()
