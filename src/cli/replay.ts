import * as E from 'fp-ts/lib/Either.js'
import { lazily } from '../core/lazily.ts'
import { nodeModule, resolveModule } from '../core/runtime.ts'
import * as S from '../core/shape.ts'
import { withOutputs } from '../format/onnx/outputs.ts'
import { isSafetensors } from '../format/safetensors.ts'
import type { Declared, Property } from '../format/vnnlib.ts'
import type { Replay } from '../verify/replay.ts'

/** What is used of onnxruntime-node and onnxruntime-web. */
interface Runtime {
  readonly env: { logLevel?: string; readonly wasm?: { numThreads?: number } }
  readonly InferenceSession: {
    readonly create: (bytes: Uint8Array, options: Readonly<Record<string, unknown>>) => Promise<Session>
  }
  readonly Tensor: new (type: string, data: Float32Array | Float64Array, shape: readonly number[]) => unknown
}
interface Session {
  readonly inputMetadata: readonly {
    readonly name: string
    readonly type?: string
    readonly shape?: readonly (number | string)[]
  }[]
  readonly outputNames: readonly string[]
  readonly run: (
    feeds: Readonly<Record<string, unknown>>,
  ) => Promise<Readonly<Record<string, { readonly data: ArrayLike<number | bigint> }>>>
  readonly release: () => Promise<void>
}

/** The packages that are asked for, the native one first: it computes as the competition's does. */
export const RUNTIMES = ['onnxruntime-node', 'onnxruntime-web'] as const

/** One thread, and nothing is logged but what ends it. */
const load = async (name: string): Promise<Runtime> => {
  const module = await nodeModule<Runtime & { readonly default?: Runtime }>(name)
  const ort = module.InferenceSession === undefined ? (module.default as Runtime) : module
  ort.env.logLevel = 'fatal'
  if (ort.env.wasm !== undefined) ort.env.wasm.numThreads = 1
  return ort
}

/** A network of a property: its file, and the tensors that are computed of its input. */
interface Part {
  readonly input: Declared
  readonly computed: readonly Declared[]
  readonly bytes: Uint8Array
}

const sessionOf = async (ort: Runtime, { input, computed, bytes }: Part) => {
  const own = computed.flatMap(({ node }) => (node === undefined ? [] : [node]))
  const session = await ort.InferenceSession.create(withOutputs(bytes, own), {
    logSeverityLevel: 4,
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
  })
  const [{ name, type = 'float32', shape = [] }] = session.inputMetadata
  // An extent without a number is the batch.
  const extents = shape.map((d) => (typeof d === 'number' && d > 0 ? d : 1))
  if (session.inputMetadata.length !== 1 || S.size(extents) !== input.size)
    throw new Error(`the model takes ${session.inputMetadata.length} inputs, ${name} of the shape ${S.show(extents)}`)
  const numbers = type === 'float64' ? Float64Array : Float32Array
  return {
    close: () => session.release(),
    run: async (x: Float64Array): Promise<readonly ArrayLike<number>[]> => {
      const found = await session.run({ [name]: new ort.Tensor(type, numbers.from(x), extents) })
      return computed.map(({ node, size, name: tensor }) => {
        const y = Float64Array.from(found[node ?? session.outputNames[0]].data, Number)
        if (y.length !== size) throw new Error(`${tensor} has ${y.length} elements`)
        return y
      })
    },
  }
}

/** Seconds until onnxruntime is there and has read a small model, on a slow machine, and bytes of a model that it reads in one more. */
const [LOAD, BYTES] = [1, 1e7]

/**
 * Replays counterexamples of a property by onnxruntime, whichever package of it is installed; it is loaded when a point is first replayed. `files` are the bytes of the networks by name.
 * A Left where none is installed, or a network is not of ONNX.
 */
export const onnxReplay = (
  property: Property,
  files: ReadonlyMap<string, Uint8Array>,
  required: boolean,
): E.Either<string, Replay & { readonly close: () => Promise<void> }> => {
  const parts = property.networks.map(
    ({ name, like, tensors }): Part => ({
      input: tensors.find(({ kind }) => kind === 'input') as Declared,
      computed: tensors.filter(({ kind }) => kind !== 'input'),
      bytes: files.get(like?.kind === 'equal' ? like.name : name) as Uint8Array,
    }),
  )
  if (parts.some(({ bytes }) => isSafetensors(bytes))) return E.left('onnxruntime reads ONNX files only')
  const by = RUNTIMES.find(isInstalled)
  if (by === undefined) return E.left(`neither of the optional packages ${RUNTIMES.join(' and ')} is installed`)
  const sessions = lazily(async () => {
    const ort = await load(by)
    return Promise.all(parts.map(async (part) => ({ ...part, session: await sessionOf(ort, part) })))
  })
  return E.right({
    by,
    required,
    seconds: LOAD + parts.reduce((n, { bytes }) => n + bytes.length, 0) / BYTES,
    outputs: async (x) => {
      try {
        const y: number[] = []
        for (const { input, session } of await sessions.get())
          for (const values of await session.run(x.slice(input.first, input.first + input.size)))
            y.push(...Array.from(values))
        return E.right([...y, ...property.watched.map((v) => (v % 2 === 0 ? x[v >> 1] : y[v >> 1]))])
      } catch (e) {
        return E.left(e instanceof Error ? e.message.split('\n')[0] : String(e))
      }
    },
    close: async () => {
      const made = await sessions.known()
      for (const { session } of made ?? []) await session.close()
    },
  })
}

const isInstalled = (name: string): boolean => {
  try {
    resolveModule(name)
    return true
  } catch {
    return false
  }
}
