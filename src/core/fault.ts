/** What is wrong with the content of a file, and where: a name, or an offset in a text. Caught where the content is decoded, never outside. */
export class Fault extends Error {
  constructor(
    override readonly message: string,
    readonly place?: string,
    readonly at?: number,
  ) {
    super(message)
  }
}
