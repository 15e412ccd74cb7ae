// Everything that computes. The page only draws what is posted from here.
import {
  type Backend,
  type Checkpoint,
  type Data,
  decodeModel,
  digits,
  encodeModel,
  encodeModelOnnx,
  key,
  networks,
  openDevice,
  orThrow,
  show,
  take,
  verify,
} from 'mixtrain'
import { pgdAttack } from 'mixtrain/attacks'
import { methods } from 'mixtrain/bounds'
import type { ObjectiveName } from 'mixtrain/losses'
import { type Inspector, inspector } from './inspect.ts'
import {
  CLASSES,
  type FromWorker,
  METHODS,
  type Origin,
  type Question,
  type Rates,
  SIDE,
  type Slot,
  type ToWorker,
  type TrainSettings,
} from './protocol.ts'
import { trainer } from './training.ts'

/** Which trained models the build put beside this file. */
declare const STARTER: { readonly file: string } | undefined
declare const NATURAL: { readonly file: string } | undefined

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

// ---- models ---------------------------------------------------------------------------------------------------------

interface Shown {
  readonly inspector: Inspector
  readonly origin: Origin
  readonly loss: ObjectiveName
  readonly arithmetic: 'exact' | 'fast-math'
  readonly seed: number
}
let shown: Shown
/** The network beside it. */
let natural: Inspector | undefined

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
  post({ type: 'model', origin: next.origin })
}

const fromFile = (wasm: Backend, name: string, bytes: Uint8Array, origin?: Origin) => {
  const read = decodeModel(bytes, name)
  if (read._tag === 'Left') return notice('error', `Not opened: ${show(read.left)}`)
  const { network, parameters, provenance } = read.right
  if (network.classes !== CLASSES || network.input.join() !== `1,${SIDE},${SIDE}`)
    return notice('error', `Not opened: ${name} is not a network for ten classes of ${SIDE} x ${SIDE} grey images`)
  const known: Origin = origin ?? { kind: 'file', name, network: network.name, epsilon: provenance?.epsilon }
  const rest = { origin: known, arithmetic: provenance?.arithmetic ?? 'exact', seed: provenance?.seed ?? 0 } as const
  present(wasm, { ...rest, loss: 'mixtrain' }, parameters, network.name === 'small' ? small : network)
}

const fromRun = (wasm: Backend, { state, history }: Checkpoint, s: TrainSettings, onGpu: boolean): void =>
  present(
    wasm,
    {
      origin: { kind: 'trained', loss: s.loss, epsilon: s.epsilon, epochs: history.length, of: s.epochs },
      loss: s.loss,
      arithmetic: onGpu ? 'fast-math' : 'exact',
      seed: s.seed,
    },
    state.parameters,
  )

/** A file beside this one, unpacked, unless the host did so already. */
const beside = async (file: string): Promise<Uint8Array> => {
  const response = await fetch(new URL(file, import.meta.url))
  if (!response.ok) throw new Error(`HTTP ${response.status}`)
  const bytes = new Uint8Array(await response.arrayBuffer())
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

const start = async (wasm: Backend): Promise<void> => {
  if (typeof NATURAL !== 'undefined')
    try {
      const { network, parameters } = orThrow(decodeModel(await beside(NATURAL.file), NATURAL.file))
      natural = inspector(wasm, network.name === 'small' ? small : network, parameters)
    } catch (e) {
      notice('warning', `The network to compare with could not be loaded (${reasonOf(e)}).`)
    }
  if (typeof STARTER !== 'undefined') {
    try {
      const bytes = await beside(STARTER.file)
      const read = decodeModel(bytes, STARTER.file)
      const epsilon = read._tag === 'Right' ? (read.right.provenance?.epsilon ?? 0) : 0
      fromFile(wasm, STARTER.file, bytes, { kind: 'starter', epsilon })
      if (shown !== undefined) return
    } catch (e) {
      notice('warning', `The starter model could not be loaded (${reasonOf(e)}). The network is untrained.`)
    }
  }
  present(wasm, { origin: { kind: 'untrained' }, loss: 'mixtrain', arithmetic: 'exact', seed: 0 }, small.init(key(0)))
}

// ---- questions: the latest wins -----------------------------------------------------------------------------------------

let asked: Extract<ToWorker, { type: 'inspect' }> | undefined
let answering = false

/** Thrown where a newer question waits. */
class Superseded extends Error {}
const between = async (): Promise<void> => {
  await breathe()
  if (asked !== undefined) throw new Superseded()
}

let isTraining = (): boolean => false

/** A moving slider gets bounds and attacks; the rest is computed once it rests. */
const REST = 250

const both = async (id: number, slot: Slot, at: Inspector, question: Question): Promise<number> => {
  const bounds = await at.bounds(question)
  post({ type: 'bounds', id, slot, question, bounds })
  if (bounds.verdict !== 'open') return bounds.label
  await between()
  post({ type: 'attacked', id, slot, adversarial: await at.attack(question, bounds.label, between) })
  return bounds.label
}

const rest = async (id: number, question: Question): Promise<void> => {
  // A training has the device to itself, but for what is looked at; when it ends, the page asks again.
  if (isTraining()) return
  for (let waited = 0; waited < REST; waited += 25) {
    await new Promise((resolve) => setTimeout(resolve, 25))
    await between()
  }
  if (natural !== undefined) await both(id, 'natural', natural, question)
  const at = shown.inspector
  for (const method of METHODS) {
    await between()
    if (at !== shown.inspector) return
    post({ type: 'margins', id, method, bounds: await at.bounds({ ...question, method }) })
  }
  await between()
  post({ type: 'layers', id, layers: await at.layers(question) })
}

const answer = async (): Promise<void> => {
  if (answering) return
  answering = true
  try {
    while (asked !== undefined) {
      const { id, question, compare } = asked
      asked = undefined
      try {
        const label = await both(id, 'opened', shown.inspector, question)
        if (compare) await rest(id, { ...question, label })
      } catch (e) {
        if (!(e instanceof Superseded)) throw e
      }
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

/** ACC, ERA and VRA of both networks on the first test images. */
const measure = async (
  wasm: Backend,
  data: Data,
  { count, epsilon, method }: Extract<ToWorker, { type: 'measure' }>,
): Promise<void> => {
  const rates: Partial<Record<Slot, Rates>> = {}
  const those = { opened: shown.inspector, natural }
  for (const slot of ['opened', 'natural'] as const) {
    const at = those[slot]
    if (at === undefined) continue
    const { acc, era, vra } = await verify({
      network: at.network,
      parameters: at.parameters(),
      data: take(count)(data.test),
      epsilon,
      method: methods[method],
      attack: pgdAttack({ steps: 10, restarts: 1, seed: 0 }),
      batchSize: 25,
      progress: (done, total) => {
        post({ type: 'measuring', slot, done, total })
        return breathe()
      },
    })(wasm)
    rates[slot] = { acc, era, vra }
  }
  post({ type: 'measured', rates })
}

// ---- messages -----------------------------------------------------------------------------------------------------------

const modelOf = ({ inspector: at, origin, loss, arithmetic, seed }: Shown) => {
  const epsilon = 'epsilon' in origin ? origin.epsilon : undefined
  const provenance = epsilon === undefined ? undefined : { epsilon, loss, seed, arithmetic }
  return { network: at.network, parameters: at.parameters(), provenance }
}

const exported = (): void => {
  const bytes = Uint8Array.from(encodeModel(modelOf(shown)))
  post({ type: 'exported', name: `mixtrain-${shown.inspector.network.name}.safetensors`, bytes }, [bytes.buffer])
}

const onnx = (): void => {
  const bytes = Uint8Array.from(orThrow(encodeModelOnnx(modelOf(shown))))
  post({ type: 'onnx', bytes }, [bytes.buffer])
}

const told =
  (what: string) =>
  (e: unknown): void =>
    notice('error', `${what}: ${reasonOf(e)}`)

const receive = (wasm: Backend, data: Data) => {
  const training = trainer(wasm, data, { post, breathe, trained: (...run) => fromRun(wasm, ...run) })
  isTraining = training.isRunning
  return ({ data: m }: MessageEvent<ToWorker>) => {
    switch (m.type) {
      case 'train':
        void training.start(m.settings, m.resume)
        return
      case 'pause':
        return training.pause()
      case 'continue':
        return training.go()
      case 'stop':
        return training.stop()
      case 'inspect':
        asked = m
        void answer()
        return
      case 'radius':
        largestRadius(m.id, m.question).catch(told('The radius was not found'))
        return
      case 'measure':
        measure(wasm, data, m).catch((e) => {
          post({ type: 'measured', rates: {} })
          told('Not measured')(e)
        })
        return
      case 'export':
      case 'onnx':
        try {
          return m.type === 'export' ? exported() : onnx()
        } catch (e) {
          return told('Not written')(e)
        }
      case 'load':
        return fromFile(wasm, m.name, m.bytes)
      case 'restore':
        return fromRun(wasm, m.checkpoint, m.settings, m.settings.device !== 'wasm')
      default:
        return m satisfies never
    }
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
  const wasm = orThrow(opened).backend
  const images = Uint8Array.from(data.test.inputs)
  const labels = Uint8Array.from(data.test.labels)
  await start(wasm)
  scope.onmessage = receive(wasm, data)
  const about = { threads: wasm.threads, isolated: globalThis.crossOriginIsolated === true, gpu }
  post({ type: 'ready', ...about, images, labels, natural: natural !== undefined }, [images.buffer, labels.buffer])
}

begin().catch((e) => {
  // Reaches the page as an error event.
  setTimeout(() => {
    throw e
  })
})
