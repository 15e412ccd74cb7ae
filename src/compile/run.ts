import * as E from 'fp-ts/lib/Either.js'
import { raise } from '../core/error.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Backend, Buffer, Data } from './backend.ts'
import { type Plan, plan } from './plan.ts'
import type { Region } from './region.ts'

/** A compiled function of buffers, and what it costs. */
export interface Compiled {
  /** Arguments: the inputs' buffers in order, then the outputs'. Enqueues; does not wait. */
  readonly run: (args: readonly Buffer[]) => void
  readonly scratchBytes: number
  readonly release: () => void
}

/** The plan that a backend runs; `keep` as in `PlanOptions`. */
export const planFor =
  (backend: Pick<Backend, 'epilogue' | 'results' | 'rounds' | 'page'>, keep = true) =>
  (outputs: readonly Tensor[], inputs: readonly Tensor[]): Plan =>
    plan(outputs, inputs, {
      keep,
      epilogue: backend.epilogue,
      results: backend.results,
      rounds: backend.rounds ?? false,
      page: backend.page,
    })

/** Bytes of scratch that a plan takes on a backend, its kernels' own aside. */
export const planBytes = (backend: Pick<Backend, 'dtype'>, { arena }: Plan): number =>
  arena * (backend.dtype === 'f32' ? 4 : 8)

/** Compiles a plan made for the backend. */
const compilePlan =
  (backend: Backend) =>
  async (made: Plan): Promise<Compiled> => {
    const executable = await backend.compile(made)()
    if (E.isLeft(executable)) return raise(executable.left)
    const e = executable.right
    return { run: (args) => backend.run(e, args), scratchBytes: e.bytes, release: () => backend.release(e) }
  }

/**
 * Plans and compiles `outputs` as a function of `inputs` on a backend.
 *
 * @example
 *   const x = input('x', [2])
 *   const double = compile(reference())([mul(x, 2)], [x])
 */
export const compile =
  (backend: Backend) =>
  (outputs: readonly Tensor[], inputs: readonly Tensor[]): Promise<Compiled> =>
    compilePlan(backend)(planFor(backend)(outputs, inputs))

/**
 * `compile`, released when the region ends.
 *
 * @example
 *   const x = input('x', [2])
 *   const { region, close } = openRegion(reference())
 *   const total = await compileIn(region)([sum(x)], [x])
 *   close()
 */
export const compileIn =
  (region: Region) =>
  (outputs: readonly Tensor[], inputs: readonly Tensor[]): Promise<Compiled> =>
    compilePlanIn(region)(planFor(region.backend)(outputs, inputs))

/** `compilePlan`, released when the region ends. */
export const compilePlanIn =
  (region: Region) =>
  async (made: Plan): Promise<Compiled> => {
    const compiled = await compilePlan(region.backend)(made)
    region.defer(compiled.release)
    return compiled
  }

/**
 * Computes tensors once: feeds in, data out, every buffer freed whatever happens.
 *
 * @example
 *   const { lower, upper } = relu(ball(constant([0.05], [1]), 0.1))
 *   const [[l], [u]] = await evaluate(reference())([lower, upper])
 *   [l, u] // [0, 0.15]
 */
export const evaluate =
  (backend: Backend) =>
  async (outputs: readonly Tensor[], feeds: ReadonlyMap<Tensor, Data> = new Map()): Promise<readonly Data[]> => {
    const inputs = [...feeds.keys()]
    const f = await compile(backend)(outputs, inputs)
    const args: Buffer[] = []
    try {
      for (const x of [...inputs, ...outputs]) args.push(backend.alloc(S.size(x.shape)))
      inputs.forEach((x, i) => backend.write(args[i], feeds.get(x) as Data))
      f.run(args)
      const results: Data[] = []
      for (const b of args.slice(inputs.length)) results.push(await backend.read(b))
      return results
    } finally {
      for (const b of args) backend.free(b)
      f.release()
    }
  }
