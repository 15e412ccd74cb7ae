// What is said about an answer, in words.
import { aDigit, plain, signed } from './dom.ts'
import type { Bounds, Method, Origin } from './protocol.ts'
import { type Answer, type Found, isEmpty, type State, seen } from './state.ts'

export interface Verdict {
  readonly kind: 'waiting' | 'certified' | 'open' | 'broken' | 'misclassified'
  readonly word: string
  readonly why: string
}

export const weakest = ({ margin, label }: Bounds): number =>
  margin.reduce((worst, m, j) => (j !== label && (worst === label || !(m >= margin[worst])) ? j : worst), label)

/** The example in view: what was found, or what was found before while another is searched for. */
export const foundOf = (answer: Answer | undefined): Found | undefined =>
  answer?.attack.kind === 'found'
    ? answer.attack.found
    : answer?.attack.kind === 'searching'
      ? answer.attack.last
      : undefined

/** Of one answer. */
export const verdictOf = ({ bounds: b, question, attack }: Answer): Verdict => {
  const rival = weakest(b)
  const margin = `${signed(b.margin[rival], 3)} against ${rival}`
  const epsilon = plain(question.epsilon, 3)
  if (b.verdict === 'certified')
    return {
      kind: 'certified',
      word: `Certified: ${aDigit(b.label)}`,
      why: `No change of up to ${epsilon} per pixel makes it anything else. The smallest margin is at least ${margin}.`,
    }
  if (b.verdict === 'misclassified')
    return {
      kind: 'misclassified',
      word: `Misclassified: taken for ${aDigit(b.prediction)}`,
      why: `It should be ${aDigit(b.label)}. Without any change the network is wrong already.`,
    }
  switch (attack.kind) {
    case 'found': {
      const reached = aDigit(attack.found.adversarial.prediction)
      return {
        kind: 'broken',
        word: `Not certified: it can become ${reached}`,
        why: `An attack found an image in the box that is taken for ${reached}. The smallest margin may be as low as ${margin}.`,
      }
    }
    case 'searching':
      return {
        kind: attack.last === undefined ? 'open' : 'broken',
        word: 'Not certified',
        why: `The smallest margin may be as low as ${margin}. Attacking …`,
      }
    default:
      return {
        kind: 'open',
        word: 'Not certified',
        why: `The bound on the smallest margin is ${margin}, but an attack found nothing either: undecided.`,
      }
  }
}

/** Of the page. */
export const pageVerdict = (state: State): Verdict => {
  const waiting = (word: string, why: string): Verdict => ({ kind: 'waiting', word, why })
  if (state.phase === 'down' || (state.phase === 'starting' && state.crashes.length > 0))
    return waiting('The worker stopped', 'Bounds come back when it runs again.')
  const { opened } = state.answers
  if (opened !== undefined) return verdictOf(opened)
  return state.phase !== 'starting' && isEmpty(seen(state))
    ? waiting('The pad is empty', 'Draw a digit, or pick a test image.')
    : waiting('Loading the network …', '')
}

export const describeOrigin = (o: Origin): string => {
  switch (o.kind) {
    case 'untrained':
      return 'The network is untrained: its weights are random. Train it to see the bounds shrink.'
    case 'starter':
      return `The network: a small starter, trained by MixTrain for ε = ${o.epsilon}.`
    case 'trained':
      return `The network: yours, after epoch ${o.epochs} of ${o.of}, trained${o.loss === 'natural' ? ' as usual' : ` for ε = ${o.epsilon}`}.`
    case 'file':
      return `The network: ${o.network} from ${o.name}${o.epsilon === undefined ? '' : `, trained for ε = ${o.epsilon}`}.`
    default:
      return o satisfies never
  }
}

export const METHOD_NAMES: Readonly<Record<Method, string>> = {
  ibp: 'intervals (IBP)',
  'crown-ibp': 'CROWN-IBP',
  symbolic: 'symbolic',
  crown: 'CROWN',
  'alpha-crown': 'alpha-CROWN',
}

/** The commands that do the same. */
export const shellOf = ({ pad, epsilon, method, settings: s }: State): string => {
  const bounds =
    pad.picked === undefined
      ? '# bounds: pick an untouched test image'
      : `mixtrain bounds mixtrain-small.safetensors \\\n  --index ${pad.picked} --epsilon ${epsilon} --method ${method}`
  const loss = s.loss === 'mixtrain' ? '' : ` --loss ${s.loss}`
  const rest = [
    ...(s.images < 5000 ? ['--batch-size 20'] : []),
    ...(s.loss === 'mixtrain' ? [`--k ${s.k}`] : []),
    ...(s.balance === undefined ? [] : [`--balance ${s.balance}`]),
  ].join(' ')
  const train = `mixtrain train${loss} --limit ${s.images} \\\n  --epochs ${s.epochs} --epsilon ${s.epsilon}`
  return `${bounds}\n\n${train}${rest === '' ? '' : ` \\\n  ${rest}`}`
}
