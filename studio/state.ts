// What the page is: one immutable state, the events that change it, and the effects that a change asks for. Nothing here touches the browser.
import type { Checkpoint, EpochRecord } from 'mixtrain'
import { type Change, keyed, type Pen, type Point, stroke } from './pen.ts'
import { centred } from './picture.ts'
import {
  type Adversarial,
  type Bounds,
  type FromProver,
  type FromWorker,
  type Layer,
  type Method,
  type Origin,
  PIXELS,
  type Question,
  type Rates,
  type Slot,
  type ToProver,
  type ToWorker,
  type TrainSettings,
} from './protocol.ts'

/** `down`: there is no worker. */
export type Phase = 'starting' | 'idle' | 'running' | 'paused' | 'stopping' | 'down'

export interface Notice {
  readonly level: 'info' | 'warning' | 'error'
  readonly text: string
  /** Whether it offers to start the worker again. */
  readonly again: boolean
}

export interface TestImages {
  readonly images: Uint8Array
  readonly labels: Uint8Array
}

/** Pixels as the library hands them to a network: float32(byte / 255). */
export const imageOf = ({ images }: TestImages, index: number): Float32Array =>
  Float32Array.from(images.subarray(index * PIXELS, (index + 1) * PIXELS), (byte) => byte / 255)

export interface Pad {
  readonly pixels: Float32Array
  readonly pen: Pen | undefined
  /** Test image on the pad, untouched. */
  readonly picked: number | undefined
  /** It began as a test image: it is centred already. */
  readonly fromTest: boolean
  /** The pen was used since the pad was cleared or an image was picked. */
  readonly drawn: boolean
}

export type Attack =
  | { readonly kind: 'unneeded' | 'none' }
  /** The one before stays in view. */
  | { readonly kind: 'searching'; readonly last: Found | undefined }
  | { readonly kind: 'found'; readonly found: Found }

/** An adversarial example, and the question that it answers. */
export interface Found {
  readonly adversarial: Adversarial
  readonly question: Question
}

export interface Answer {
  readonly id: number
  readonly question: Question
  readonly bounds: Bounds
  readonly attack: Attack
}

export interface Run {
  readonly settings: TrainSettings
  readonly history: readonly EpochRecord[]
  readonly checkpoint: Checkpoint | undefined
}

export interface ModelFile {
  readonly name: string
  readonly bytes: Uint8Array<ArrayBuffer>
}

export interface Proof {
  readonly stage: 'none' | 'writing' | 'checking' | 'checked' | 'refused'
  /** What was found, or why not. */
  readonly text: string
  readonly network: Uint8Array<ArrayBuffer> | undefined
  readonly proof: Uint8Array<ArrayBuffer> | undefined
  readonly claim: { readonly pixels: Float32Array; readonly label: number; readonly epsilon: string } | undefined
}

export interface State {
  readonly phase: Phase
  readonly machine:
    | { readonly threads: number; readonly isolated: boolean; readonly gpu: string | undefined }
    | undefined
  readonly crashes: readonly number[]
  readonly notices: readonly Notice[]
  readonly test: TestImages | undefined
  /** The first test image in view. */
  readonly page: number
  readonly pad: Pad
  readonly centre: boolean
  readonly label: number | undefined
  readonly epsilon: number
  readonly method: Method
  /** The number of the last question, and the first whose answer still counts. */
  readonly asked: number
  readonly since: number
  readonly answers: Readonly<Partial<Record<Slot, Answer>>>
  readonly hasNatural: boolean
  /** Whether the comparisons are in view: they are computed then alone. */
  readonly compare: boolean
  readonly margins: { readonly id: number; readonly by: Readonly<Partial<Record<Method, Bounds>>> }
  readonly layers: readonly Layer[]
  /** Ends of the axis of the intervals. */
  readonly scale: readonly [low: number, high: number]
  readonly radius: string
  /** The question whose largest radius is searched for. */
  readonly searching: number | undefined
  readonly origin: Origin
  /** The file that the network came from, and the one that the worker was last asked to open. */
  readonly opened: ModelFile | undefined
  readonly opening: ModelFile | undefined
  readonly settings: TrainSettings
  readonly run: Run | undefined
  readonly progress: { readonly text: string; readonly done: number; readonly total: number }
  readonly device: string
  readonly slice: {
    readonly text: string
    readonly about: { readonly count: number; readonly epsilon: number; readonly method: Method } | undefined
    readonly busy: boolean
    readonly rates: Readonly<Partial<Record<Slot, Rates>>>
  }
  readonly proof: Proof
}

export type Effect =
  | { readonly type: 'send'; readonly message: ToWorker }
  | { readonly type: 'prove'; readonly message: ToProver }
  | { readonly type: 'launch' }
  | { readonly type: 'save'; readonly name: string; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: 'focus'; readonly id: string; readonly ifLost: boolean }

export type Event =
  | { readonly type: 'stroke'; readonly from: Point; readonly to: Point }
  | { readonly type: 'key'; readonly key: string; readonly shift: boolean }
  | { readonly type: 'left-pad' | 'clear' | 'radius' | 'again' | 'stop' | 'submit' | 'download' | 'prove' }
  | { readonly type: 'save-proof' | 'save-network' | 'launch' }
  | { readonly type: 'pick'; readonly index: number }
  | { readonly type: 'turn'; readonly by: number }
  | { readonly type: 'picture'; readonly pixels: Float32Array }
  | { readonly type: 'centre'; readonly on: boolean }
  | { readonly type: 'compare'; readonly inView: boolean }
  | { readonly type: 'label'; readonly label: number | undefined }
  | { readonly type: 'epsilon'; readonly epsilon: number }
  | { readonly type: 'method'; readonly method: Method }
  | { readonly type: 'settings'; readonly settings: TrainSettings }
  | { readonly type: 'file'; readonly name: string; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: 'measure'; readonly count: number }
  | { readonly type: 'check-files'; readonly files: readonly ModelFile[] }
  | { readonly type: 'notify'; readonly level: Notice['level']; readonly text: string }
  | { readonly type: 'dismiss'; readonly text: string }
  | { readonly type: 'worker'; readonly message: FromWorker }
  | { readonly type: 'prover'; readonly message: FromProver }
  | { readonly type: 'crashed'; readonly why: string; readonly now: number }

export interface Next {
  readonly state: State
  readonly effects: readonly Effect[]
}

export const TEST_PAGE = 20
const NO_PROOF: Proof = { stage: 'none', text: '', network: undefined, proof: undefined, claim: undefined }

export const initial: State = {
  phase: 'starting',
  machine: undefined,
  crashes: [],
  notices: [],
  test: undefined,
  page: 0,
  pad: { pixels: new Float32Array(PIXELS), pen: undefined, picked: undefined, fromTest: false, drawn: false },
  centre: true,
  label: undefined,
  epsilon: 0.1,
  method: 'symbolic',
  asked: 0,
  since: 1,
  answers: {},
  hasNatural: false,
  compare: false,
  margins: { id: 0, by: {} },
  layers: [],
  scale: [-1, 1],
  radius: '',
  searching: undefined,
  origin: { kind: 'untrained' },
  opened: undefined,
  opening: undefined,
  settings: {
    device: 'auto',
    loss: 'mixtrain',
    epsilon: 0.1,
    epochs: 8,
    images: 1000,
    k: 2,
    balance: undefined,
    seed: 0,
  },
  run: undefined,
  progress: { text: '', done: 0, total: 1 },
  device: '',
  slice: { text: '', about: undefined, busy: false, rates: {} },
  proof: NO_PROOF,
}

// ---- what is read from a state ---------------------------------------------------------------------------------------------

/** The image as the networks see it. */
export const seen = ({ pad, centre }: Pick<State, 'pad' | 'centre'>): Float32Array =>
  pad.drawn && centre ? centred(pad.pixels) : pad.pixels
export const isEmpty = (image: Float32Array): boolean => image.every((v) => v === 0)
export const isBusy = ({ phase }: State): boolean => phase === 'running' || phase === 'paused' || phase === 'stopping'
export const resumable = ({ run }: State): boolean =>
  run?.checkpoint !== undefined && run.history.length < run.settings.epochs

// ---- events ---------------------------------------------------------------------------------------------------------------------

const next = (state: State, ...effects: readonly Effect[]): Next => ({ state, effects })
const send = (message: ToWorker): Effect => ({ type: 'send', message })

/** Asks about what the page shows now. */
const ask = (given: State): Next => {
  const state = { ...given, radius: '', searching: undefined }
  if (state.phase === 'starting' || state.phase === 'down') return next(state)
  const image = seen(state)
  if (isEmpty(image))
    return next({ ...state, since: state.asked + 1, answers: {}, margins: { id: 0, by: {} }, layers: [] })
  const { label, epsilon, method, compare } = state
  const id = state.asked + 1
  return next(
    { ...state, asked: id },
    send({ type: 'inspect', id, question: { image, label, epsilon, method }, compare }),
  )
}

const notified = (state: State, level: Notice['level'], text: string, again = false): State =>
  state.notices.some((n) => n.text === text)
    ? state
    : { ...state, notices: [...state.notices, { level, text, again }].slice(-3) }

const told = (state: State, text: string, done: number, total: number): State => ({
  ...state,
  progress: { text, done, total },
})

const begun = (state: State, settings: TrainSettings, resume: Checkpoint | undefined): Next =>
  next(
    {
      ...told(state, 'Preparing …', 0, 1),
      run: { settings, history: resume?.history ?? [], checkpoint: resume },
      device: '',
      phase: 'running',
    },
    send({ type: 'train', settings, resume }),
  )

const submitted = (state: State): Next => {
  const { phase, run } = state
  if (phase === 'running') return next({ ...state, phase: 'paused' }, send({ type: 'pause' }))
  if (phase === 'paused') return next({ ...state, phase: 'running' }, send({ type: 'continue' }))
  if (phase !== 'idle') return next(state)
  return run !== undefined && resumable(state)
    ? begun(state, run.settings, run.checkpoint)
    : begun(state, state.settings, undefined)
}

const padded = (
  state: State,
  pad: { readonly pixels: Float32Array; readonly pen: Pen | undefined },
  change: Change,
) => {
  if (change === 'none') return next({ ...state, pad: { ...state.pad, pen: pad.pen } })
  const { fromTest, drawn } = state.pad
  const cleared = change === 'cleared'
  // A test image that is moved or drawn upon is no longer that test image, but it keeps its place and label.
  const of = {
    picked: undefined,
    fromTest: fromTest && !cleared,
    drawn: cleared ? false : drawn || (change === 'drawn' && !fromTest),
  }
  return ask({ ...state, label: cleared ? undefined : state.label, pad: { ...pad, ...of } })
}

const picked = (state: State, index: number): Next => {
  const { test } = state
  if (test === undefined || !(index >= 0 && index < test.labels.length)) return next(state)
  const pad = { pixels: imageOf(test, index), pen: undefined, picked: index, fromTest: true, drawn: false }
  return ask({ ...state, pad, label: test.labels[index] })
}

const proving = (state: State): Next => {
  const shown = state.answers.opened
  if (shown?.bounds.verdict !== 'certified') return next(state)
  const { question, bounds } = shown
  const claim = { pixels: question.image, label: bounds.label, epsilon: String(question.epsilon) }
  const proof: Proof = { ...NO_PROOF, stage: 'writing', text: 'Writing a proof …', claim }
  return next({ ...state, proof }, send({ type: 'onnx' }))
}

const GZIP = [0x1f, 0x8b]
const isPacked = ({ bytes }: ModelFile): boolean => GZIP.every((b, i) => bytes[i] === b)
/** A proof begins with a record of JSON; a network is protobuf. Either may be packed, then its name tells. */
const isProof = (file: ModelFile): boolean =>
  isPacked(file) ? /proof|jsonl/i.test(file.name) : file.bytes[0] === '{'.charCodeAt(0) || file.bytes[0] === 91

const checkingFiles = (state: State, files: readonly ModelFile[]): Next => {
  const proof = files.find(isProof)
  const network = files.find((f) => f !== proof)?.bytes ?? state.proof.network
  if (proof === undefined || network === undefined) {
    const missing = proof === undefined ? 'a proof' : 'the ONNX file that it is about'
    return next({ ...state, proof: { ...state.proof, stage: 'refused', text: `Not checked: choose ${missing}, too.` } })
  }
  const checking: Proof = {
    stage: 'checking',
    text: `Checking ${proof.name} …`,
    network,
    proof: proof.bytes,
    claim: undefined,
  }
  return next({ ...state, proof: checking }, { type: 'prove', message: { type: 'check', network, proof: proof.bytes } })
}

/** What a person did. */
const asked = (state: State, event: Exclude<Event, { type: 'worker' | 'prover' | 'crashed' }>): Next => {
  switch (event.type) {
    case 'stroke':
      return padded(state, { pixels: stroke(state.pad.pixels, event.from, event.to), pen: undefined }, 'drawn')
    case 'key': {
      const done = keyed(state.pad, event.key, event.shift)
      return done === undefined ? next(state) : padded(state, { pixels: done.pixels, pen: done.pen }, done.change)
    }
    case 'left-pad':
      return next(state.pad.pen === undefined ? state : { ...state, pad: { ...state.pad, pen: undefined } })
    case 'clear':
      return padded(state, { pixels: new Float32Array(PIXELS), pen: state.pad.pen }, 'cleared')
    case 'picture':
      return ask({
        ...state,
        label: undefined,
        pad: { pixels: event.pixels, pen: undefined, picked: undefined, fromTest: false, drawn: true },
      })
    case 'pick':
      return picked(state, event.index)
    case 'turn': {
      const last = Math.max(0, (state.test?.labels.length ?? 0) - TEST_PAGE)
      return next({ ...state, page: Math.max(0, Math.min(last, state.page + event.by)) })
    }
    case 'centre':
      return ask({ ...state, centre: event.on })
    case 'compare': {
      const after = { ...state, compare: event.inView }
      if (!event.inView || state.compare) return next(after)
      // The same question, with more to answer: a radius that is found or searched for is still about it.
      const { state: again, effects } = ask(after)
      const { radius, searching } = state
      return next({ ...again, radius, searching }, ...effects)
    }
    case 'label':
      return ask({ ...state, label: event.label })
    case 'epsilon':
      return ask({ ...state, epsilon: event.epsilon })
    case 'method':
      return ask({ ...state, method: event.method })
    case 'radius': {
      const shown = state.answers.opened
      if (shown === undefined) return next(state)
      const { question, bounds } = shown
      if (bounds.verdict === 'misclassified') return next({ ...state, radius: 'none: it is misclassified' })
      const about = { ...question, label: bounds.label }
      return next(
        { ...state, radius: 'searching …', searching: state.asked },
        send({ type: 'radius', id: state.asked, question: about }),
      )
    }
    case 'settings':
      return next({ ...state, settings: event.settings })
    case 'submit':
      return submitted(state)
    case 'stop':
      return next({ ...state, phase: 'stopping' }, send({ type: 'stop' }))
    case 'again': {
      const { state: after, effects } = begun(state, state.settings, undefined)
      return next(after, ...effects, { type: 'focus', id: 'go', ifLost: false })
    }
    case 'download':
      return next(state, state.opened === undefined ? send({ type: 'export' }) : { type: 'save', ...state.opened })
    case 'file': {
      const opening = { name: event.name, bytes: event.bytes }
      // What was said about another file is over.
      const notices = state.notices.filter(({ text }) => !text.startsWith('Not opened'))
      return next({ ...state, opening, notices }, send({ type: 'load', ...opening }))
    }
    case 'measure': {
      const { epsilon, method } = state
      const about = { count: event.count, epsilon, method }
      const slice = { text: 'Measuring …', about, busy: true, rates: {} }
      return next({ ...state, slice }, send({ type: 'measure', ...about }))
    }
    case 'prove':
      return proving(state)
    case 'save-proof': {
      const { proof } = state.proof
      return next(
        state,
        ...(proof === undefined ? [] : [{ type: 'save', name: 'image.proof.gz', bytes: proof } as const]),
      )
    }
    case 'save-network': {
      const { network } = state.proof
      return next(
        state,
        ...(network === undefined ? [] : [{ type: 'save', name: 'network.onnx', bytes: network } as const]),
      )
    }
    case 'check-files':
      return checkingFiles(state, event.files)
    case 'notify':
      return next(notified(state, event.level, event.text))
    case 'dismiss':
      return next({ ...state, notices: state.notices.filter(({ text }) => text !== event.text) })
    case 'launch':
      return next(
        { ...state, phase: 'starting', notices: state.notices.filter(({ again }) => !again) },
        { type: 'launch' },
      )
    default:
      return event satisfies never
  }
}

/** The axis grows at once and shrinks late, so that a moving slider shows moving bars. */
const scaled = ([low, high]: State['scale'], { lower, upper, logits }: Bounds): State['scale'] => {
  const finite = [...lower, ...upper, ...logits].filter(Number.isFinite)
  const [least, most] = [Math.min(0, ...finite), Math.max(0, ...finite)]
  const span = Math.max(most - least, 1e-6)
  return least < low || most > high || span < 0.45 * (high - low)
    ? [least - 0.08 * span, most + 0.08 * span]
    : [low, high]
}

const ready = (state: State, m: Extract<FromWorker, { type: 'ready' }>): Next => {
  const { threads, isolated, gpu } = m
  const up: State = { ...state, machine: { threads, isolated, gpu }, phase: 'idle', hasNatural: m.natural }
  if (state.test === undefined) {
    const first = { ...up, test: { images: m.images, labels: m.labels } }
    // A link may name a test image. Nobody drew while the network was loading: something to look at.
    const at = state.pad.picked
    if (at !== undefined && at < m.labels.length)
      return picked({ ...first, page: TEST_PAGE * Math.floor(at / TEST_PAGE) }, at)
    return isEmpty(state.pad.pixels) ? picked(first, 0) : ask(first)
  }
  const { opened, run } = state
  if (opened !== undefined) return next(up, send({ type: 'load', ...opened }))
  if (run?.checkpoint !== undefined)
    return next(up, send({ type: 'restore', checkpoint: run.checkpoint, settings: run.settings }))
  return ask(up)
}

/** Answers come in order, but not to every question: while a slider moves, the worker takes the latest. */
const bounded = (state: State, { id, slot, question, bounds }: Extract<FromWorker, { type: 'bounds' }>): State => {
  if (id < state.since) return state
  const before = state.answers[slot]?.attack
  const last = before?.kind === 'found' ? before.found : before?.kind === 'searching' ? before.last : undefined
  // Until the attack on the new question is over, the last example stays in view.
  const attack: Attack = bounds.verdict === 'open' ? { kind: 'searching', last } : { kind: 'unneeded' }
  const scale = slot === 'opened' ? scaled(state.scale, bounds) : state.scale
  return { ...state, scale, answers: { ...state.answers, [slot]: { id, question, bounds, attack } } }
}

const attacked = (state: State, { id, slot, adversarial }: Extract<FromWorker, { type: 'attacked' }>): State => {
  const answer = state.answers[slot]
  if (answer?.id !== id) return state
  const attack: Attack =
    adversarial === undefined ? { kind: 'none' } : { kind: 'found', found: { adversarial, question: answer.question } }
  return { ...state, answers: { ...state.answers, [slot]: { ...answer, attack } } }
}

const progressed = (state: State, m: Extract<FromWorker, { type: 'progress' }>): State => {
  if (state.run === undefined || state.phase === 'stopping') return state
  const { epochs } = state.run.settings
  const unit = m.phase === 'training' ? 'steps' : 'images'
  const doing = m.phase === 'preparing' ? 'preparing' : `${m.phase} ${m.done}/${m.total} ${unit}`
  // Measuring an epoch takes about as long as a fifth of it.
  const within =
    m.phase === 'preparing' ? 0 : m.phase === 'training' ? (0.8 * m.done) / m.total : 0.8 + (0.2 * m.done) / m.total
  return told(state, `Epoch ${m.epoch + 1} of ${epochs}: ${doing}`, m.epoch + within, epochs)
}

const plural = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`

const ended = (state: State, { why, message }: Extract<FromWorker, { type: 'ended' }>): Next => {
  const epochs = state.run?.history.length ?? 0
  const failed = why === 'failed' ? notified(state, 'error', `Training stopped: ${message}`) : state
  const done = why === 'finished' ? 'Finished' : why === 'stopped' ? 'Stopped' : 'Failed'
  const after = told(failed, `${done} after ${plural(epochs, 'epoch')}`, epochs, state.run?.settings.epochs ?? 1)
  // Comparisons wait for the end of a training.
  const { state: idle, effects } = ask({ ...after, phase: 'idle' })
  // The button that had the focus is gone.
  return next(idle, ...effects, ...(why === 'stopped' ? [{ type: 'focus', id: 'go', ifLost: true } as const] : []))
}

const received = (state: State, m: FromWorker): Next => {
  switch (m.type) {
    case 'ready':
      return ready(state, m)
    case 'model': {
      const opened = m.origin.kind === 'file' ? state.opening : undefined
      return ask({ ...state, origin: m.origin, opened, slice: initial.slice, margins: initial.margins, layers: [] })
    }
    case 'training':
      return next({ ...state, device: m.text })
    case 'progress':
      return next(progressed(state, m))
    case 'epoch': {
      if (state.run === undefined) return next(state)
      return next({ ...state, run: { ...state.run, history: m.checkpoint.history, checkpoint: m.checkpoint } })
    }
    case 'ended':
      return ended(state, m)
    case 'bounds':
      return next(bounded(state, m))
    case 'attacked':
      return next(attacked(state, m))
    case 'margins': {
      if (m.id < state.since) return next(state)
      const { id, by } = state.margins
      // Rows of the question before stay until theirs come.
      return next({ ...state, margins: { id: Math.max(id, m.id), by: { ...by, [m.method]: m.bounds } } })
    }
    case 'layers':
      return next(m.id < state.since ? state : { ...state, layers: m.layers })
    case 'radius':
      return next(
        m.id === state.searching
          ? { ...state, searching: undefined, radius: `ε = ${m.epsilon.toFixed(3)}${m.epsilon === 0 ? ': none' : ''}` }
          : state,
      )
    case 'measuring': {
      const of = m.slot === 'opened' ? 'this network' : 'the usual one'
      return next({ ...state, slice: { ...state.slice, text: `Measuring ${of}: ${m.done} of ${m.total} images` } })
    }
    case 'measured':
      return next({ ...state, slice: { ...state.slice, text: '', busy: false, rates: m.rates } })
    case 'exported':
      return next(state, { type: 'save', name: m.name, bytes: m.bytes })
    case 'onnx': {
      const { claim } = state.proof
      if (claim === undefined) return next(state)
      const message = { type: 'prove', network: m.bytes, ...claim } as const
      return next({ ...state, proof: { ...state.proof, network: m.bytes } }, { type: 'prove', message })
    }
    case 'notice': {
      const after = notified(state, m.level, m.text)
      const writing = state.proof.stage === 'writing' && m.text.startsWith('Not written')
      return next(writing ? { ...after, proof: NO_PROOF } : after)
    }
    default:
      return m satisfies never
  }
}

const kilobytes = (bytes: Uint8Array): string => `${(bytes.length / 1000).toFixed(1)} kB`

const proved = (state: State, m: FromProver): Next => {
  const { proof } = state
  switch (m.type) {
    case 'proved': {
      if (proof.network === undefined) return next(state)
      const text = `A proof of ${kilobytes(m.proof)}. Checking it …`
      const message = { type: 'check', network: proof.network, proof: m.proof } as const
      return next(
        { ...state, proof: { ...proof, stage: 'checking', proof: m.proof, text } },
        { type: 'prove', message },
      )
    }
    case 'checked': {
      const what =
        m.label === undefined || m.epsilon === undefined
          ? 'the property holds'
          : `no change of up to ${m.epsilon} per pixel makes this image anything but ${m.label}`
      const size = proof.proof === undefined ? '' : `, ${kilobytes(proof.proof)}`
      const text =
        m.verdict === 'unsat'
          ? `Checked in exact arithmetic: ${what} (${plural(m.leaves, 'box').replace('boxs', 'boxes')}${size}, ${m.seconds.toFixed(1)} s).`
          : `Checked: the proof shows ${m.verdict}.`
      return next({ ...state, proof: { ...proof, stage: 'checked', text } })
    }
    case 'refused':
      return next({ ...state, proof: { ...proof, stage: 'refused', text: `Refused: ${m.reason}.` } })
    default:
      return m satisfies never
  }
}

const crashed = (state: State, why: string, now: number): Next => {
  const crashes = [...state.crashes.filter((t) => now - t < 60_000), now]
  const down: State = {
    ...state,
    phase: 'down',
    crashes,
    answers: {},
    since: state.asked + 1,
    slice: initial.slice,
  }
  if (state.phase === 'starting' || crashes.length > 3)
    return next(
      notified({ ...down, machine: undefined }, 'error', `The worker that computes does not run: ${why}.`, true),
    )
  const lost = isBusy(state)
  const epochs = state.run?.history.length ?? 0
  const rest = !lost
    ? ''
    : epochs > 0
      ? ` Press Continue to go on after epoch ${epochs}.`
      : ' Training can be started again.'
  const interrupted = lost
    ? told(down, `Interrupted after ${plural(epochs, 'epoch')}`, epochs, state.run?.settings.epochs ?? 1)
    : down
  const run = state.run?.checkpoint === undefined ? undefined : state.run
  const warned = notified(
    { ...interrupted, run, phase: 'starting' },
    'warning',
    `The worker stopped (${why}) and was started again.${rest}`,
  )
  return next(warned, { type: 'launch' })
}

/** The state after an event, and what is to be done. */
export const update = (state: State, event: Event): Next => {
  switch (event.type) {
    case 'worker':
      return received(state, event.message)
    case 'prover':
      return proved(state, event.message)
    case 'crashed':
      return crashed(state, event.why, event.now)
    default:
      return asked(state, event)
  }
}
