/** Everything that can go wrong, as data. `show` is the only place that turns an error into prose. */
export type MixtrainError =
  | { readonly kind: 'shape'; readonly op: string; readonly message: string }
  | { readonly kind: 'unsupported'; readonly what: string; readonly reason: string; readonly instead?: string }
  | { readonly kind: 'usage'; readonly message: string }
  | { readonly kind: 'file'; readonly path: string; readonly place?: string; readonly message: string }
  | { readonly kind: 'device'; readonly device: string; readonly message: string }
  | { readonly kind: 'memory'; readonly needed: number; readonly budget: number; readonly what: string }

/**
 * An error as the line that the command line prints.
 *
 * @example
 *   show({ kind: 'usage', message: 'epsilon: expected a number' }) // 'epsilon: expected a number'
 */
export const show = (e: MixtrainError): string => {
  switch (e.kind) {
    case 'shape':
      return `${e.op}: ${e.message}`
    case 'unsupported':
      return `${e.what} is not supported: ${e.reason}${e.instead === undefined ? '' : `; ${e.instead}`}`
    case 'usage':
      return e.message
    case 'file':
      return `${e.path}${e.place === undefined ? '' : ` (${e.place})`}: ${e.message}`
    case 'device':
      return `device ${e.device}: ${e.message}`
    case 'memory':
      return `${e.what} needs ${Math.ceil(e.needed / 2 ** 20)} MB, but the memory budget is ${Math.floor(e.budget / 2 ** 20)} MB (--memory)`
    default:
      return e satisfies never
  }
}

/**
 * The one exception class: raised where a *program* is wrong (shapes that do not fit, an op without the rule asked for) while a
 * graph is being built. Effects (files, devices) report errors as values in an Either instead.
 */
export class MixtrainException extends Error {
  override readonly name = 'MixtrainException'
  constructor(readonly error: MixtrainError) {
    super(show(error))
  }
}

export const raise = (error: MixtrainError): never => {
  throw new MixtrainException(error)
}

/**
 * The value of what may have failed, or the error as an exception: `orThrow(decodeModel(bytes, path))`, `await orThrow(loadFolder(files)(path))`. For programs
 * that have no use for `Either` (a result with a `_tag`) and `TaskEither` (a function to a promise of one).
 * @throws MixtrainException with the error.
 *
 * @example
 *   const { network } = orThrow(decodeModel(await readFile('model.onnx'), 'model.onnx'))
 */
export function orThrow<A>(result: Outcome<A>): A
export function orThrow<A>(task: () => Promise<Outcome<A>>): Promise<A>
export function orThrow<A>(result: Outcome<A> | (() => Promise<Outcome<A>>)): A | Promise<A> {
  if (typeof result === 'function') return result().then((r) => orThrow(r))
  return result._tag === 'Right' ? result.right : raise(result.left)
}

/** An `Either` of fp-ts, by its structure. */
export type Outcome<A> =
  | { readonly _tag: 'Left'; readonly left: MixtrainError }
  | { readonly _tag: 'Right'; readonly right: A }

export const usage = (message: string): MixtrainError => ({ kind: 'usage', message })
export const fileError = (path: string, message: string, place?: string): MixtrainError => ({
  kind: 'file',
  path,
  message,
  ...(place === undefined ? {} : { place }),
})
export const deviceError = (device: string, message: string): MixtrainError => ({ kind: 'device', device, message })
