import { show, size } from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { type ChooseAttrs, chooseOp, dataOf, full, type Host, inputNameOf } from '../ops/index.ts'

/**
 * A graph put in order: every node after its inputs, each value once, nothing that the outputs do not need, and composite ops
 * expanded. This one list is what is run, planned and printed.
 */
export interface Tape {
  readonly nodes: readonly Tensor[]
  readonly outputs: readonly Tensor[]
}

/** Nodes that the outputs depend on, inputs before users (depth first, in the order of the graph), and none below `ends`. Iterative: graphs are deep. */
export const order = (outputs: readonly Tensor[], ends: readonly Tensor[] = []): readonly Tensor[] => {
  const done = new Set<Tensor>()
  const result: Tensor[] = []
  const stack: (readonly [Tensor, number])[] = []
  for (const root of outputs) {
    if (done.has(root)) continue
    stack.push([root, 0])
    while (stack.length > 0) {
      const [x, next] = stack.pop() as readonly [Tensor, number]
      if (done.has(x)) continue
      const child = ends.includes(x) ? undefined : x.inputs[next]
      if (child === undefined) {
        done.add(x)
        result.push(x)
      } else {
        stack.push([x, next + 1])
        if (!done.has(child)) stack.push([child, 0])
      }
    }
  }
  return result
}

/** The graph with every node rebuilt by `f`, given its new inputs; nodes it returns unchanged keep their identity. */
export const rewrite = (
  outputs: readonly Tensor[],
  f: (x: Tensor, inputs: readonly Tensor[]) => Tensor,
): readonly Tensor[] => {
  const image = new Map<Tensor, Tensor>()
  for (const x of order(outputs))
    image.set(
      x,
      f(
        x,
        x.inputs.map((i) => image.get(i) as Tensor),
      ),
    )
  return outputs.map((x) => image.get(x) as Tensor)
}

const withInputs = (x: Tensor, inputs: readonly Tensor[]): Tensor =>
  inputs.every((y, i) => y === x.inputs[i]) ? x : { ...x, inputs }

/** The graph with some nodes replaced by others of the same shape. */
export const substitute = (outputs: readonly Tensor[], map: ReadonlyMap<Tensor, Tensor>): readonly Tensor[] =>
  rewrite(outputs, (x, inputs) => map.get(x) ?? withInputs(x, inputs))

/** A graph with choices of the host in it. */
export interface Staging {
  /** The draws that this host state leads to, in order: equal keys mean equal graphs. Costs nothing but the draws. */
  readonly key: (host: Host) => string
  /** The graph with every `choose` node replaced by the branch drawn. */
  readonly resolve: (host: Host) => readonly Tensor[]
}

/**
 * Takes the host's choices out of a graph: branches not drawn are never looked at, let alone planned. A compiled step is cached
 * under its key.
 */
export const stage = (outputs: readonly Tensor[]): Staging => {
  const frontiers = new Map<Tensor | typeof outputs, readonly Tensor[]>()
  /** Choices reachable without passing another choice. */
  const frontier = (from: Tensor | typeof outputs): readonly Tensor[] => {
    const known = frontiers.get(from)
    if (known !== undefined) return known
    const found = new Set<Tensor>()
    const seen = new Set<Tensor>()
    const stack = [...('op' in from ? [from] : from)].reverse()
    while (stack.length > 0) {
      const x = stack.pop() as Tensor
      if (seen.has(x)) continue
      seen.add(x)
      if (x.op === chooseOp) found.add(x)
      else stack.push(...[...x.inputs].reverse())
    }
    const result = [...found]
    frontiers.set(from, result)
    return result
  }
  const drawn = (host: Host): ReadonlyMap<Tensor, number> => {
    const draws = new Map<Tensor, number>()
    const queue = [...frontier(outputs)]
    for (const x of queue) {
      if (draws.has(x)) continue
      const branch = (x.attrs as ChooseAttrs).draw(host)
      if (x.inputs[branch] === undefined)
        throw new RangeError(`a choice of ${x.inputs.length} branches drew branch ${branch}`)
      draws.set(x, branch)
      queue.push(...frontier(x.inputs[branch]))
    }
    return draws
  }
  return {
    key: (host) => [...drawn(host).values()].join(','),
    resolve: (host) => {
      const draws = drawn(host)
      const branchOf = (x: Tensor): Tensor => {
        const branch = draws.get(x)
        return branch === undefined ? x : branchOf(x.inputs[branch])
      }
      // Rebuilt over chosen branches only: a choice is skipped before its inputs are visited.
      const image = new Map<Tensor, Tensor>()
      const stack = outputs.map(branchOf).reverse()
      while (stack.length > 0) {
        const x = stack[stack.length - 1]
        const inputs = x.inputs.map(branchOf)
        const missing = inputs.filter((i) => !image.has(i))
        if (missing.length > 0 && !image.has(x)) stack.push(...missing.reverse())
        else {
          image.set(
            x,
            image.get(x) ??
              withInputs(
                x,
                inputs.map((i) => image.get(i) as Tensor),
              ),
          )
          stack.pop()
        }
      }
      return outputs.map((x) => image.get(branchOf(x)) as Tensor)
    },
  }
}

/** Small integers for objects that have no text of their own (large constants, functions). */
const identities = () => {
  const ids = new Map<unknown, number>()
  return (x: unknown): number => {
    const id = ids.get(x) ?? ids.size
    ids.set(x, id)
    return id
  }
}

const SMALL = 64

/** Two nodes with the same op, attributes and inputs compute the same value. */
const share = (outputs: readonly Tensor[]): readonly Tensor[] => {
  const id = identities()
  const seen = new Map<string, Tensor>()
  const text = (x: Tensor): string => {
    const data = dataOf(x)
    if (data !== undefined) {
      return data.length <= SMALL
        ? `${show(x.shape)}${[...data].map((v) => (Object.is(v, -0) ? '-0' : v))}`
        : `#${id(data)}`
    }
    if (inputNameOf(x) !== undefined || x.op === chooseOp) return `#${id(x)}`
    return 'rounds' in x.op.kernel ? `#${id(x.attrs)}` : (JSON.stringify(x.attrs) ?? '')
  }
  return rewrite(outputs, (x, inputs) => {
    const key = `${x.op.name}#${id(x.op)}|${text(x)}|${inputs.map(id).join()}`
    const known = seen.get(key)
    if (known !== undefined) return known
    const built = withInputs(x, inputs)
    seen.set(key, built)
    return built
  })
}

/** Composite ops replaced by their definition, until none is left. */
const expand = (outputs: readonly Tensor[]): readonly Tensor[] => {
  const composite = (xs: readonly Tensor[]) => order(xs).some((x) => 'expand' in x.op.kernel)
  let result = outputs
  while (composite(result))
    result = rewrite(result, (x, inputs) =>
      'expand' in x.op.kernel ? x.op.kernel.expand(inputs, x.attrs) : withInputs(x, inputs),
    )
  return result
}

/**
 * What a kernel makes of an operand without elements does not depend on the others: a sum of no products is 0, a row of an empty table NaN. Its own reference
 * says which, so that no backend has kernels of extent 0.
 */
const withoutEmpty = (outputs: readonly Tensor[]): readonly Tensor[] => {
  const readsNothing = (x: Tensor) =>
    size(x.shape) > 0 &&
    x.inputs.some((i) => size(i.shape) === 0) &&
    'lower' in x.op.kernel &&
    x.op.kernel.lower(
      x.inputs.map((i) => i.shape),
      x.shape,
      x.attrs,
    ).kind === 'kernel'
  if (!order(outputs).some(readsNothing)) return outputs
  return rewrite(outputs, (x, inputs) => {
    if (!readsNothing(x) || !('lower' in x.op.kernel)) return withInputs(x, inputs)
    const value = new Float64Array(size(x.shape))
    const nothing = x.inputs.map((i) => new Float64Array(size(i.shape)))
    const shapes = x.inputs.map((i) => i.shape)
    x.op.kernel.reference(value, nothing, shapes, x.shape, x.attrs)
    return full(x.shape, value[0])
  })
}

/**
 * Order, expansion, common subexpressions, dead nodes: everything between a graph and a plan.
 *
 * @example
 *   const x = input('x', [2])
 *   tape([relu(x)]).nodes.length // 2
 */
export const tape = (outputs: readonly Tensor[]): Tape => {
  const shared = share(withoutEmpty(expand(outputs)))
  return { nodes: order(shared), outputs: shared }
}

const attributes = (x: Tensor): string => {
  const [data, name] = [dataOf(x), inputNameOf(x)]
  if (data !== undefined) return data.length > 4 ? `${[...data.slice(0, 3)].join(' ')} ...` : [...data].join(' ')
  if (name !== undefined) return name
  if (x.attrs === undefined || x.attrs === null) return ''
  return Object.entries(x.attrs)
    .filter(([, v]) => typeof v !== 'function')
    .map(([k, v]) => `${k}=${Array.isArray(v) ? show(v) : String(v)}`)
    .join(' ')
}

/**
 * One line per value, `%3 = relu(%2) [50,16,14,14]`, for reading and for tests.
 *
 * @example
 *   const x = input('x', [2])
 *   console.log(print(tape([relu(x)])))
 */
export const print = ({ nodes, outputs }: Tape): string => {
  const index = new Map(nodes.map((x, i) => [x, i]))
  const ref = (x: Tensor) => `%${index.get(x)}`
  const lines = nodes.map((x) => {
    const extra = attributes(x)
    return `${ref(x)} = ${x.op.name}(${x.inputs.map(ref).join(', ')})${extra === '' ? '' : ` {${extra}}`} ${show(x.shape)}`
  })
  return [...lines, `return ${outputs.map(ref).join(', ')}`].join('\n')
}
