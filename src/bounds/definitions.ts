import { order, rewrite } from '../compile/tape.ts'
import { describe, withOrigin } from '../core/op.ts'
import type { Tensor } from '../core/tensor.ts'

const definitionOf = ({ op: { relax } }: Tensor) =>
  typeof relax === 'object' && 'definition' in relax ? relax.definition : undefined

/** What takes the place of each node where every op that has a definition is replaced by it, undefined where none has one. Nodes that are `kept` stay. */
const replaced = (
  output: Tensor,
  kept: { readonly has: (x: Tensor) => boolean },
): ReadonlyMap<Tensor, Tensor> | undefined => {
  if (!order([output]).some((x) => !kept.has(x) && definitionOf(x))) return undefined
  const image = new Map<Tensor, Tensor>()
  rewrite([output], (x, inputs) => {
    const definition = kept.has(x) ? undefined : definitionOf(x)
    const same = inputs.every((y, i) => y === x.inputs[i])
    const own = definition?.(inputs, x.attrs)
    const made =
      own === undefined
        ? same
          ? x
          : { ...x, inputs }
        : withOrigin(own, new Set(inputs), x.origin ?? `the definition of ${describe(x)}`)
    image.set(x, made)
    return made
  })
  return image
}

/** The node of the graph without definitions that takes the place of each. A definition may be of ops that have one themselves. */
export const withoutDefinitions = (
  output: Tensor,
  kept: { readonly has: (x: Tensor) => boolean } = new Set<Tensor>(),
): ((x: Tensor) => Tensor) => {
  const image = replaced(output, kept)
  if (image === undefined) return (x) => x
  const to = (x: Tensor) => image.get(x) ?? x
  const next = withoutDefinitions(to(output), kept)
  return (x) => next(to(x))
}
