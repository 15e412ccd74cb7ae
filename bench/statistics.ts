/** NaN for nothing. */
export const mean = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0) / x.length

/** The upper of the two in the middle where there are two. */
export const median = (x: readonly number[]): number => [...x].sort((a, b) => a - b)[x.length >> 1]
