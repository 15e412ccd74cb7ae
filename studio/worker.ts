// Everything that computes. The page only draws what is posted from here.
import {
  type Backend,
  type Checkpoint,
  type Data,
  type Device,
  decodeModel,
  digits,
  encodeModel,
  type Failure,
  fit,
  holdOut,
  key,
  MixtrainException,
  networks,
  openDevice,
  type Progress,
  recipe,
  show,
  take,
  withFallback,
} from '../src/index.ts'
import { type Inspector, inspector } from './inspect.ts'
import {
  CLASSES,
  type FromWorker,
  type Origin,
  type Question,
  SIDE,
  type ToWorker,
  type TrainSettings,
} from './protocol.ts'

/** Whether the build put a trained model beside this file. */
declare const STARTER: { readonly file: string } | undefined

const scope = self as unknown as {
  postMessage: (message: FromWorker, transfer?: Transferable[]) => void
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null
}
const post = (message: FromWorker, transfer: Transferable[] = []): void => scope.postMessage(message, transfer)
const notice = (level: 'info' | 'warning' | 'error', text: string): void => post({ type: 'notice', level, text })
const reasonOf = (e: unknown): string => (e instanceof Error ? e.message : String(e))
/** Lets messages in. */
const breathe = (): Promise<void> => new Promise((resolve) => setTimeout(resolve))

const small = networks.small({ input: [1, SIDE, SIDE], classes: CLASSES })

// ---- the model that is looked at ------------------------------------------------------------------------------------

interface Shown {
  readonly inspector: Inspector
  readonly origin: Origin
  readonly arithmetic: 'exact' | 'fast-math'
  readonly seed: number
}
let shown: Shown

const present = (
  wasm: Backend,
  next: Omit<Shown, 'inspector'>,
  parameters: Checkpoint['state']['parameters'],
  network = small,
): void => {
  if (shown?.inspector.network === network) {
    shown.inspector.set(parameters)
    shown = { ...next, inspector: shown.inspector }
  } else {
    shown?.inspector.close()
    shown = { ...next, inspector: inspector(wasm, network, parameters) }
  }
  post({ type: 'model', origin: next.origin, parameters: Object.values(parameters).reduce((n, p) => n + p.length, 0) })
}

const fromFile = (wasm: Backend, name: string, bytes: Uint8Array, origin?: Origin) => {
  const read = decodeModel(bytes, name)
  if (read._tag === 'Left') return notice('error', `Not opened: ${show(read.left)}`)
  const { network, parameters, provenance } = read.right
  if (network.classes !== CLASSES || network.input.join() !== `1,${SIDE},${SIDE}`)
    return notice('error', `Not opened: ${name} is not a network for ten classes of ${SIDE} x ${SIDE} grey images`)
  const known: Origin = origin ?? { kind: 'file', name, network: network.name, epsilon: provenance?.epsilon }
  const rest = { origin: known, arithmetic: provenance?.arithmetic ?? 'exact', seed: provenance?.seed ?? 0 }
  present(wasm, rest, parameters, network.name === 'small' ? small : network)
}

const fromRun = (wasm: Backend, { state, history }: Checkpoint, s: TrainSettings, onGpu: boolean): void =>
  present(
    wasm,
    {
      origin: { kind: 'trained', epsilon: s.epsilon, epochs: history.length, of: s.epochs },
      arithmetic: onGpu ? 'fast-math' : 'exact',
      seed: s.seed,
    },
    state.parameters,
  )

const start = async (wasm: Backend): Promise<void> => {
  if (typeof STARTER !== 'undefined') {
    try {
      const response = await fetch(new URL(STARTER.file, import.meta.url))
      if (!response.ok) throw new Error(`HTTP ${response.status}`)
      const bytes = new Uint8Array(await response.arrayBuffer())
      const read = decodeModel(bytes, STARTER.file)
      const epsilon = read._tag === 'Right' ? (read.right.provenance?.epsilon ?? 0) : 0
      fromFile(wasm, STARTER.file, bytes, { kind: 'starter', epsilon })
      if (shown !== undefined) return
    } catch (e) {
      notice('warning', `The starter model could not be loaded (${reasonOf(e)}). The network is untrained.`)
    }
  }
  present(wasm, { origin: { kind: 'untrained' }, arithmetic: 'exact', seed: 0 }, small.init(key(0)))
}

// ---- questions: the latest wins -----------------------------------------------------------------------------------------

let asked: { readonly id: number; readonly question: Question } | undefined
let answering = false

const answer = async (): Promise<void> => {
  if (answering) return
  answering = true
  try {
    while (asked !== undefined) {
      const { id, question } = asked
      asked = undefined
      const bounds = await shown.inspector.bounds(question)
      post({ type: 'bounds', id, bounds })
      if (bounds.verdict !== 'open') continue
      await breathe()
      if (asked !== undefined) continue
      post({ type: 'attacked', id, adversarial: await shown.inspector.attack(question, bounds.label) })
    }
  } catch (e) {
    notice('error', `The bounds could not be computed: ${reasonOf(e)}`)
  } finally {
    answering = false
  }
}

const RESOLUTION = 0.001

/** The largest multiple of 0.001 up to which bisection finds the image certified. */
const largestRadius = async (id: number, question: Question): Promise<void> => {
  let [good, bad] = [0, Math.round(0.5 / RESOLUTION)]
  const { inspector: at } = shown
  const certified = async (steps: number) =>
    (await at.bounds({ ...question, epsilon: steps * RESOLUTION })).verdict === 'certified'
  while (bad - good > 1) {
    const middle = (good + bad) >> 1
    if (await certified(middle)) good = middle
    else bad = middle
    await breathe()
    if (at !== shown.inspector) return
  }
  post({ type: 'radius', id, epsilon: good * RESOLUTION })
}

// ---- training -----------------------------------------------------------------------------------------------------------

class Stopped extends Error {}
let training = false
let stopping = false
let paused: { readonly wait: Promise<void>; readonly release: () => void } | undefined

const hold = (): void => {
  if (paused !== undefined) return
  let release = () => {}
  const wait = new Promise<void>((resolve) => {
    release = resolve
  })
  paused = { wait, release }
}
const release = (): void => {
  paused?.release()
  paused = undefined
}

let reported = 0
const progressOn = (backend: () => Backend) => {
  /** The work of the step before: a GPU would take any number of steps at once, and show, pause and stop late. */
  let queued = Promise.resolve()
  let on = backend()
  return async (p: Progress): Promise<void> => {
    // What a device that failed still had to do is nothing to wait for.
    const before = backend() === on ? queued : Promise.resolve()
    on = backend()
    queued = on.sync()
    queued.catch(() => undefined)
    await before
    const now = performance.now()
    if (now - reported > 80 || p.done === p.total) {
      reported = now
      post({ type: 'progress', ...p })
    }
    await breathe()
    await paused?.wait
    if (stopping) throw new Stopped()
  }
}

/** The device to train on. WASM is open already; a GPU that does not work is told about. */
const chosen = async (
  wasm: Backend,
  { device }: TrainSettings,
): Promise<{ readonly backend: Backend; readonly reason?: string }> => {
  if (device === 'wasm') return { backend: wasm }
  const opened = await openDevice({ device, threads: 1, fallback: false })()
  if (opened._tag === 'Left') {
    notice('warning', `WebGPU cannot be used (${show(opened.left)}). Training on WebAssembly instead.`)
    return { backend: wasm }
  }
  const { backend, reason }: Device = opened.right
  // Where the GPU fails, the WASM of the page takes over; it does not end with the training.
  if (backend.name === 'webgpu')
    return {
      backend: withFallback(backend, async () => ({ _tag: 'Right', right: { ...wasm, dispose: () => undefined } })),
    }
  backend.dispose()
  return { backend: wasm, reason: reason.replace(/; WebAssembly SIMD works here$/, '') }
}

/** Small sets get small batches, so that a quick trial takes enough steps. */
const recipeOf = ({ epsilon, epochs, images }: TrainSettings) =>
  recipe('mixtrain', { epsilon, epochs, ...(images < 5000 ? { batchSize: 20, k: 2 } : {}) })

const train = async (
  wasm: Backend,
  data: Data,
  settings: TrainSettings,
  resume: Checkpoint | undefined,
): Promise<void> => {
  const { k: _, numbers: __, ...plan } = recipeOf(settings)
  const { epsilon, seed } = settings
  const images = { train: take(settings.images)(data.train) }
  post({ type: 'progress', phase: 'preparing', epoch: resume?.history.length ?? 0, done: 0, total: 1 })
  const { backend, reason } = await chosen(wasm, settings)
  let current = backend
  const onGpu = backend.name === 'webgpu'
  const tell = (more: string | undefined): void => {
    const held = `${holdOut(images.train).monitor.count} images held out`
    const about = [current.description, `batches of ${plan.batchSize}`, held, ...(more === undefined ? [] : [more])]
    post({ type: 'training', text: about.join(' · ') })
  }
  const failed = ({ error, to, steps, kept }: Failure): void => {
    if (to === undefined) return
    current = to
    const place = kept === 0 ? 'from the beginning' : `from step ${kept} of the ${steps} that were begun`
    notice('warning', `The GPU stopped working (${show(error)}). Training goes on on WebAssembly ${place}.`)
    tell('after the loss of the GPU')
  }
  tell(reason)
  try {
    const options = { data: images, seed, ...plan, epsilon, evaluationBatch: 25, resume, failed }
    for await (const epoch of fit({ ...options, progress: progressOn(() => current) })(backend)) {
      const { checkpoint, device: ___, ...record } = epoch
      post({ type: 'epoch', record, checkpoint })
      fromRun(wasm, checkpoint, settings, onGpu)
    }
  } finally {
    if (backend !== wasm) backend.dispose()
  }
}

const runTraining = async (
  wasm: Backend,
  data: Data,
  settings: TrainSettings,
  resume: Checkpoint | undefined,
): Promise<void> => {
  if (training) return
  training = true
  stopping = false
  try {
    await train(wasm, data, settings, resume)
    post({ type: 'ended', why: 'finished', message: undefined })
  } catch (e) {
    const stopped = e instanceof Stopped
    post({ type: 'ended', why: stopped ? 'stopped' : 'failed', message: stopped ? undefined : reasonOf(e) })
  } finally {
    training = false
    release()
  }
}

// ---- messages -----------------------------------------------------------------------------------------------------------

const exported = (): void => {
  const { inspector: at, origin, arithmetic, seed } = shown
  const epsilon = 'epsilon' in origin ? origin.epsilon : undefined
  const provenance = epsilon === undefined ? undefined : { epsilon, loss: 'mixtrain', seed, arithmetic }
  const bytes = Uint8Array.from(encodeModel({ network: at.network, parameters: at.parameters(), provenance }))
  post({ type: 'exported', name: `mixtrain-${at.network.name}.safetensors`, bytes }, [bytes.buffer])
}

const receive =
  (wasm: Backend, data: Data) =>
  ({ data: m }: MessageEvent<ToWorker>) => {
    switch (m.type) {
      case 'train':
        void runTraining(wasm, data, m.settings, m.resume)
        return
      case 'pause':
        return hold()
      case 'continue':
        return release()
      case 'stop':
        stopping = true
        return release()
      case 'inspect':
        asked = m
        void answer()
        return
      case 'radius':
        largestRadius(m.id, m.question).catch((e) => notice('error', reasonOf(e)))
        return
      case 'export':
        return exported()
      case 'load':
        return fromFile(wasm, m.name, m.bytes)
      case 'restore':
        return fromRun(wasm, m.checkpoint, m.settings, m.settings.device !== 'wasm')
      default:
        return m satisfies never
    }
  }

/** The name of a GPU adapter, if one answers soon. */
const gpuName = async (): Promise<string | undefined> => {
  const late = new Promise<null>((resolve) => setTimeout(() => resolve(null), 3000))
  const adapter = await Promise.race([navigator.gpu?.requestAdapter().catch(() => null) ?? null, late])
  if (adapter === null) return undefined
  const { description, architecture, vendor } = adapter.info
  return [description, architecture, vendor].find((name) => name !== '') ?? 'unnamed'
}

const begin = async (): Promise<void> => {
  const [opened, data, gpu] = await Promise.all([openDevice({ device: 'wasm' })(), digits(), gpuName()])
  if (opened._tag === 'Left') throw new MixtrainException(opened.left)
  const wasm = opened.right.backend
  const images = Uint8Array.from(data.test.inputs)
  const labels = Uint8Array.from(data.test.labels)
  await start(wasm)
  scope.onmessage = receive(wasm, data)
  post(
    {
      type: 'ready',
      threads: wasm.threads,
      isolated: globalThis.crossOriginIsolated === true,
      gpu,
      images,
      labels,
    },
    [images.buffer, labels.buffer],
  )
}

begin().catch((e) => {
  // Reaches the page as an error event.
  setTimeout(() => {
    throw e
  })
})
