import { type Kernel, Micro, type PlanLowering } from '../core/lowering.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'

/** Rewrites of a tape before it becomes steps: other nodes, other operands, the same bits. */

/** What a kernel does to its result before it is stored: a bias for each channel or column is added, relu follows. */
export interface Epilogue {
  readonly bias: boolean
  readonly relu: boolean
}

/** Nodes after a rewrite, and what each reads now. */
export interface Rewritten {
  readonly nodes: readonly Tensor[]
  readonly inputsOf: (x: Tensor) => readonly Tensor[]
  readonly epilogues: ReadonlyMap<Tensor, Epilogue>
}

/** Which axis from the end the bias of a kernel's epilogue runs along; undefined where it has none. */
const biasAxis = (k: Kernel): number | undefined => {
  if (k.kind === 'matmul') return 1
  return (k.kind === 'conv2d' || k.kind === 'conv2dInput') && k.groups === 1 ? 3 : undefined
}

/**
 * The nodes without those that a kernel finishes itself: x -> add(x, bias) -> relu becomes the last of them, computed from the
 * inputs of x and the bias. What stands between must not be needed elsewhere; the derivative of relu does not count, as its step
 * function has the same value on the argument of relu and on the result. Lowerings in `how` are replaced accordingly.
 */
export const absorb = (
  taped: readonly Tensor[],
  how: Map<Tensor, PlanLowering>,
  isOutput: ReadonlySet<Tensor>,
): Rewritten => {
  const users = new Map<Tensor, Tensor[]>(taped.map((x) => [x, []]))
  for (const x of taped) for (const i of x.inputs) (users.get(i) as Tensor[]).push(x)
  const isMap = (x: Tensor, micro: Micro) => {
    const h = how.get(x)
    return h?.kind === 'map' && h.micro === micro
  }
  const gone = new Set<Tensor>()
  /** What stands in the place of a node: a relu in that of its argument, before what read the argument and reads the relu now. */
  const instead = new Map<Tensor, Tensor>()
  const changed = new Map<Tensor, readonly Tensor[]>()
  const epilogues = new Map<Tensor, Epilogue>()
  for (const x of taped) {
    const kernel = how.get(x)
    const axis = kernel?.kind === 'kernel' ? biasAxis(kernel.kernel) : undefined
    // A node that took an epilogue is that kernel now, and takes no second one.
    if (kernel === undefined || axis === undefined || epilogues.has(x)) continue
    /** The bias that the only consumer of x adds. */
    const biasOf = (sum: Tensor): Tensor | undefined => {
      const other = sum.inputs[0] === x ? sum.inputs[1] : sum.inputs[0]
      const extent = x.shape[x.shape.length - axis]
      const runs = S.size(other.shape) === extent && (extent === 1 || other.shape.at(-axis) === extent)
      return other !== x && runs && S.equals(sum.shape, x.shape) ? other : undefined
    }
    const [sum, ...more] = isOutput.has(x) ? [] : (users.get(x) as Tensor[])
    const bias = sum !== undefined && more.length === 0 && isMap(sum, Micro.add) ? biasOf(sum) : undefined
    const argument = bias === undefined ? x : (sum as Tensor)
    const consumers = isOutput.has(argument) ? [] : (users.get(argument) as Tensor[])
    const rectified = consumers.filter((u) => isMap(u, Micro.relu))
    const steps = consumers.filter((u) => isMap(u, Micro.step))
    const relu = rectified.length === 1 && steps.length + 1 === consumers.length ? rectified[0] : undefined
    const out = relu ?? argument
    if (out === x) continue
    if (relu !== undefined) for (const u of steps) changed.set(u, [relu])
    for (const y of [x, argument, out]) gone.add(y)
    instead.set(argument, out)
    how.set(out, kernel)
    changed.set(out, bias === undefined ? x.inputs : [...x.inputs, bias])
    epilogues.set(out, { bias: bias !== undefined, relu: relu !== undefined })
  }
  return {
    nodes: taped.flatMap((x) => instead.get(x) ?? (gone.has(x) ? [] : [x])),
    inputsOf: (x: Tensor): readonly Tensor[] => changed.get(x) ?? x.inputs,
    epilogues,
  }
}

/** x + (-y) as x - y, the same bits (derivatives of differences are full of it). Lowerings in `how` are replaced accordingly. */
export const subtracted = (
  { nodes, inputsOf, epilogues }: Rewritten,
  how: Map<Tensor, PlanLowering>,
  isOutput: ReadonlySet<Tensor>,
): Rewritten => {
  const isNegative = (x: Tensor) => {
    const h = how.get(x)
    return h?.kind === 'map' && h.micro === Micro.neg
  }
  const changed = new Map<Tensor, readonly Tensor[]>()
  for (const x of nodes) {
    const h = how.get(x)
    if (h?.kind !== 'map' || h.micro !== Micro.add) continue
    const [a, b] = inputsOf(x)
    const [from, less] = isNegative(b) ? [a, b] : [b, a]
    if (!isNegative(less)) continue
    how.set(x, { kind: 'map', micro: Micro.sub })
    changed.set(x, [from, less.inputs[0]])
  }
  const after = (x: Tensor) => changed.get(x) ?? inputsOf(x)
  const read = new Set(nodes.flatMap(after))
  return {
    nodes: nodes.filter((x) => !isNegative(x) || read.has(x) || isOutput.has(x)),
    inputsOf: after,
    epilogues,
  }
}
