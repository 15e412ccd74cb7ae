import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../../core/error.ts'
import * as S from '../../core/shape.ts'
import type { Apply, Operand } from '../../core/tensor.ts'
import { concat, reshape, slice } from '../../ops/index.ts'
import { type Subject, watching } from '../../robust/counterexample.ts'
import type { Declared, NetworkInterface, Property } from './property.ts'

const ofKind = (network: NetworkInterface, kind: Declared['kind']): readonly Declared[] =>
  network.tensors.filter((t) => t.kind === kind)
const sizeOf = (tensors: readonly Declared[]): number => tensors.reduce((n, t) => n + t.size, 0)

/** What does not fit between a network that a property declares and the one of a file. */
const misfit = (network: NetworkInterface, subject: Subject): string | undefined => {
  const [inputs, outputs] = [ofKind(network, 'input'), ofKind(network, 'output')]
  const who = network.name === '' ? 'the network' : `the network ${network.name}`
  for (const [what, tensors] of [
    ['input', inputs],
    ['output', outputs],
  ] as const)
    if (tensors.length !== 1)
      return `${network.name} declares ${tensors.length} ${what}s (${tensors.map((t) => t.name).join(', ')}); networks with one are supported`
  const sizes = [sizeOf(inputs), sizeOf(outputs), S.size(subject.input), subject.outputs]
  return sizes[0] === sizes[2] && sizes[1] === sizes[3]
    ? undefined
    : `the property has ${sizes[0]} inputs and ${sizes[1]} outputs${network.name === '' ? '' : ` of ${network.name}`}, but ${who} of the file has ${sizes[2]} and ${sizes[3]}`
}

/**
 * What a property is about, as one network: several side by side, each on its part of the inputs, their outputs one after the other, and then what is `watched`. `models` are the
 * networks by name; one that is equal to another is that one.
 */
export const subjectOf = (
  property: Property,
  models: ReadonlyMap<string, Subject>,
  path: string,
): E.Either<MixtrainError, Subject> => {
  const left = (message: string) => E.left(fileError(path, message))
  const parts: { readonly network: NetworkInterface; readonly subject: Subject }[] = []
  for (const network of property.networks) {
    const hidden = ofKind(network, 'hidden')
    if (hidden.length > 0)
      return left(
        `${network.name} declares the hidden node ${JSON.stringify(hidden[0].node)} as ${hidden[0].name}; constraints on hidden nodes are not supported`,
      )
    const name = network.like?.kind === 'equal' ? network.like.name : network.name
    const subject = models.get(name)
    if (subject === undefined) return left(`no file is given for the network ${name}`)
    const wrong = misfit(network, subject)
    if (wrong !== undefined) return left(wrong)
    parts.push({ network, subject })
  }
  if (parts.length === 1) return E.right(watching(parts[0].subject, property.watched))
  const network: Apply = (x) => {
    const n = x.shape[0]
    const outputs = parts.map(({ network: declared, subject }) => {
      const [{ first, size }] = ofKind(declared, 'input')
      const own = reshape(slice(x as Operand, [0, first], [n, size]), [n, ...subject.input])
      return reshape(subject.network(own) as Operand, [n, subject.outputs])
    })
    return concat(outputs, 1) as typeof x
  }
  const outputs = parts.reduce((n, { subject }) => n + subject.outputs, 0)
  return E.right(watching({ network, input: [property.inputs], outputs }, property.watched))
}
