/** A value that is made when it is first asked for, once. */
export interface Lazy<A> {
  /** The value, if it was asked for already. */
  readonly known: () => Promise<A> | undefined
  readonly get: () => Promise<A>
}

export const lazily = <A>(make: () => Promise<A>): Lazy<A> => {
  let made: Promise<A> | undefined
  return {
    known: () => made,
    get: () => {
      made ??= make()
      return made
    },
  }
}
