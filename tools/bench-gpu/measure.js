// What the peers of bench:gpu have in common: Dawn as navigator.gpu, repetition as in bench/gpu.ts, one line of JSON.
import { create, globals } from 'webgpu'

/** Node has no WebGPU of its own. */
export const provide = () => {
  Object.assign(globalThis, globals)
  if (globalThis.navigator === undefined) globalThis.navigator = {}
  Object.defineProperty(globalThis.navigator, 'gpu', { value: create([]), configurable: true })
}

/** Milliseconds of one call, many being enqueued before `sync`. */
export const measure = async (once, sync, patience) => {
  const timed = async (n) => {
    const begun = performance.now()
    let last
    for (let i = 0; i < n; i++) last = await once()
    await sync(last)
    return performance.now() - begun
  }
  await timed(1)
  let n = 1
  let took = await timed(n)
  while (took < patience / 2 && n < 4096) {
    n *= 2
    took = await timed(n)
  }
  return took > 4 * patience ? took / n : Math.min(took, await timed(n)) / n
}

/** `make(what, rest)` gives {once, sync, flops}. */
export const report = async (version, works, patience, make) => {
  const result = {}
  for (const work of works) {
    process.stderr.write(`${version}: ${work}\n`)
    try {
      const [what, ...rest] = work.split(' ')
      const { once, sync, flops } = make(what, rest)
      const milliseconds = await measure(once, sync, patience)
      result[work] = { milliseconds, ...(flops === undefined ? {} : { gigaflops: flops / milliseconds / 1e6 }) }
    } catch (e) {
      result[work] = {
        error: String(e?.message ?? e)
          .split('\n')[0]
          .slice(0, 200),
      }
    }
  }
  console.log(JSON.stringify({ version, works: result }))
  process.exit(0)
}

/** Deterministic values in [-0.5, 0.5). */
export const values = (n, seed = 1) => {
  let state = seed
  return Float32Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32 - 0.5
  })
}

/** Layers as [channels, kernel, stride] or [units], padding 1. */
export const LAYERS = {
  small: [[16, 4, 2], [32, 4, 2], [100], [10]],
  large: [[32, 3, 1], [32, 4, 2], [64, 3, 1], [64, 4, 2], [512], [512], [10]],
}
