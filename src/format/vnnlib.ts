import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { Fault } from '../core/fault.ts'
import { readDeclarations } from './vnnlib/declarations.ts'
import type { Property } from './vnnlib/property.ts'
import { balanced, placeOf, scanner } from './vnnlib/scan.ts'
import { readSmtlib } from './vnnlib/smtlib.ts'

export { showAssignment, showCounterexample, tensorProto, valuesOf } from './vnnlib/assignment.ts'
export { type Model, subjectOf } from './vnnlib/network.ts'
export type {
  Declared,
  ExactConstraint,
  Property,
} from './vnnlib/property.ts'

export interface VnnlibOptions {
  /** Bytes that normal forms and boxes may take. Default: 2 GiB. */
  readonly memory?: number | undefined
}

const MEMORY = 2 ** 31

/** Whether a text begins as one of VNN-LIB 2.0 does. */
const isSecond = (text: string): boolean => {
  const s = scanner(text, 'backslash')
  if (!s.isOpen()) return false
  s.open()
  return !s.isOpen() && !s.isClose() && !s.isEnd() && s.atom('a command').text === 'vnnlib-version'
}

const property = (text: string, memory: number): Property => {
  const second = isSecond(text)
  const quoting = second ? 'backslash' : 'doubled'
  balanced(text, quoting)
  const s = scanner(text, quoting)
  return second ? readDeclarations(s, memory) : readSmtlib(s, memory)
}

/**
 * Decodes a VNN-LIB property (https://www.vnnlib.org), 1.0 as VNN-COMP uses it, with the spellings of SMT-LIB, or 2.0, which begins with
 * `(vnnlib-version <2.0>)`. All assertions together describe the *counterexamples*; they are brought to a disjunction of boxes with linear constraints on the outputs
 * and, where a constraint is about several inputs or about inputs and outputs, on those inputs. Numbers are read exactly and combined exactly. What a proof uses
 * is rounded outward, what a counterexample is judged by is exact. A disjunct without a point vanishes; if none is left, there is no counterexample.
 *
 * Errors name line and column, what was expected and what was found: unbalanced parentheses, unknown commands, names, operators, numbers, element types; what is not linear
 * or not declared; an input without bounds; more memory than `memory`.
 */
export const decodeVnnlib = (
  text: string,
  path: string,
  { memory = MEMORY }: VnnlibOptions = {},
): E.Either<MixtrainError, Property> =>
  E.tryCatch(
    () => property(text, memory),
    (cause) => {
      if (!(cause instanceof Fault)) throw cause
      return fileError(path, cause.message, cause.at === undefined ? undefined : placeOf(text, cause.at))
    },
  )
