/** Numbers one after the other, as an array of a kind. */
export const joinedAs = <A extends Uint8Array | Float32Array>(
  Kind: new (length: number) => A,
  parts: readonly ArrayLike<number>[],
): A => {
  const all = new Kind(parts.reduce((n, { length }) => n + length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
