import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { MixtrainError } from '../core/error.ts'
import { nodeModule } from '../core/runtime.ts'

/**
 * A package that is loaded where it is needed and not before (Node, Deno and Bun): an optional dependency, which an installation may lack. `what` is what
 * cannot be had without it. Error: it is not installed, and how it is.
 */
export const optionalPackage =
  <M>(name: string, what: string): TaskEither<MixtrainError, M> =>
  () =>
    nodeModule<M>(name).then(E.right, (cause) => {
      if (cause?.code !== 'ERR_MODULE_NOT_FOUND') throw cause
      const reason = `the optional package ${name} is not installed: npm install ${name}`
      return E.left({ kind: 'unsupported', what, reason })
    })
