/** The first of each class, the second of each, ..., so that both ends of a data set hold every class. */
export const interleaved = <A>(byClass: readonly (readonly A[])[]): readonly A[] =>
  Array.from({ length: byClass.reduce((most, c) => Math.max(most, c.length), 0) }, (_, i) =>
    byClass.flatMap((c) => (i < c.length ? [c[i]] : [])),
  ).flat()
