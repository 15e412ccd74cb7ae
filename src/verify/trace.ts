import type { Box } from './goals.ts'

/** A split of a search: an input at a value, the half below first, or a ReLU's neuron, the half where it is active first. Neurons of all ReLUs are numbered through, as they come in the graph. */
export type Split =
  | { readonly kind: 'input'; readonly input: number; readonly value: number }
  | { readonly kind: 'relu'; readonly neuron: number }

/** Slopes of the lower lines of all neurons, in the walks that bound what a ReLU takes, the how-many-eth in the graph, to one side. */
export interface WalkSlopes {
  readonly relu: number
  readonly side: 'lower' | 'upper'
  readonly slopes: Float32Array
}

/** What refuted a part: slopes of lower lines of all neurons, in [leak, 1], multipliers of splits by neuron, weights of the rows of each conjunction. */
export interface Refuted {
  readonly slopes?: Float32Array
  readonly signs?: readonly (readonly [neuron: number, multiplier: number])[]
  readonly weights?: readonly Float64Array[]
}

/** A part of a search: split in two, refuted, or neither yet. It grows with the search. */
export interface SearchNode {
  split?: Split
  children?: readonly [SearchNode, SearchNode]
  refuted?: Refuted
}

/** The tree of a case of a property, or of one conjunction of it. */
export interface SearchTree {
  readonly at: number
  readonly conjunction?: number
  readonly root: SearchNode
  /** What the boxes of hidden values were made with, besides CROWN's slopes. */
  readonly walks?: readonly WalkSlopes[] | undefined
}

/** A part that knows its place in the tree, where one is kept. */
export interface Placed {
  readonly node?: SearchNode | undefined
}

/** Two halves of a part, at their places. */
export const grown = <P extends Placed>({ node }: P, halves: readonly P[], split: () => Split): readonly P[] => {
  if (node === undefined || halves.length !== 2) return halves
  const children = [{}, {}] as const
  node.split = split()
  node.children = children
  return halves.map((half, i) => ({ ...half, node: children[i] }))
}

/** Where a box was halved. */
export const halvedAt = (whole: Box, lower: Box): Split => {
  const input = lower.upper.findIndex((u, i) => u !== whole.upper[i])
  return { kind: 'input', input, value: lower.upper[input] }
}

/** The root of a new tree, where trees are kept. */
export const planted = (
  keeps: boolean,
  trees: SearchTree[],
  about: Omit<SearchTree, 'root'>,
): { readonly node?: SearchNode } => {
  if (!keeps) return {}
  const root = {}
  trees.push({ ...about, root })
  return { node: root }
}
