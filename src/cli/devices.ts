import { availableParallelism } from 'node:os'
import process from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import type { Backend } from '../compile/backend.ts'
import { evaluate } from '../compile/run.ts'
import { show } from '../core/error.ts'
import { constant, input, matmul, relu } from '../ops/index.ts'
import type { Command } from './command.ts'
import { withDevice } from './open.ts'
import { json, table } from './report.ts'
import { attempt } from './shell.ts'
import { VERSION } from './version.ts'

/** One device here: what it is if it works, or why it does not. */
interface Found {
  readonly name: string
  readonly works: boolean
  readonly about: string
  readonly threads: number | null
}

/** relu(x W) with a known result. */
const computes = async (backend: Backend): Promise<boolean> => {
  const x = input('x', [1, 2])
  const y = relu(matmul(x, constant([1, -2, 0.5, 3, 4, -1], [2, 3])))
  const [out] = await evaluate(backend)([y], new Map([[x, Float32Array.of(2, -1)]]))
  return [0, 0, 2].every((value, i) => out[i] === value)
}

const NAMES = ['webgpu', 'wasm', 'reference'] as const

const probe = async (
  name: (typeof NAMES)[number] | 'auto',
  machine: { readonly threads: number | undefined; readonly fastMath: boolean },
): Promise<Found> => {
  const result = await withDevice({ ...machine, device: name })(({ backend }) =>
    attempt(
      async (): Promise<Found> => ({
        name: backend.name,
        works: await computes(backend),
        about: backend.description,
        threads: backend.threads,
      }),
    ),
  )()
  if (E.isLeft(result)) return { name, works: false, about: show(result.left), threads: null }
  return result.right.works ? result.right : { ...result.right, about: 'it computes a known result wrongly' }
}

/** Smallest modules that use a feature: a v128, a relaxed lane operation, an atomic load. */
const FEATURES = {
  simd: [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
  relaxedSimd: [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11],
  threads: [1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 11, 1, 9, 0, 65, 0, 254, 16, 2, 0, 26, 11],
} as const

const has = (feature: readonly number[]): boolean =>
  WebAssembly.validate(Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, ...feature]))

const runtime = (): Readonly<Record<string, string>> => {
  const { node, deno, v8 } = process.versions as Readonly<Record<string, string | undefined>>
  return {
    mixtrain: VERSION,
    ...(deno === undefined ? { node: node ?? '?' } : { deno }),
    ...(v8 === undefined ? {} : { v8 }),
  }
}

const yes = (works: boolean): string => (works ? 'yes' : 'no')

/** `mixtrain devices`: what computes here. */
export const devicesCommand: Command<Record<never, never>, never> = {
  name: 'devices',
  summary: 'show which devices work here',
  description:
    'Tries every device with a computation of known result, and shows which ones work here and which one --device auto takes. Also shown: what the WebAssembly engine offers, and versions.',
  takes: {},
  options: {},
  examples: ['mixtrain devices', 'mixtrain devices --threads 4 --json'],
  run: (_, o, shell) =>
    attempt(async () => {
      const machine = { threads: o.threads, fastMath: o.fastMath }
      const devices: Found[] = []
      for (const name of NAMES) devices.push(await probe(name, machine))
      const chosen = await probe(o.device ?? 'auto', machine)
      const auto = chosen.works ? chosen.name : null
      const wasm = { simd: has(FEATURES.simd), relaxedSimd: has(FEATURES.relaxedSimd), threads: has(FEATURES.threads) }
      const processors = availableParallelism()
      const versions = runtime()
      if (o.json) return shell.print(json({ auto, devices, wasm, processors, versions }))
      shell.print(
        table(
          devices.map((d) => [d.name, yes(d.works), d.name === auto ? 'this one' : '', d.about]),
          ['device', 'works', o.device ?? 'auto', 'what'],
        ),
      )
      const offers = [
        `WebAssembly: SIMD ${yes(wasm.simd)}, relaxed SIMD ${yes(wasm.relaxedSimd)}, threads ${yes(wasm.threads)}`,
        `processors: ${processors}`,
        Object.entries(versions)
          .map(([name, version]) => `${name} ${version}`)
          .join(', '),
      ]
      shell.print(offers.join('\n'))
    }),
}
