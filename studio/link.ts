// A state as the fragment of an address, which never leaves the browser: image, label, epsilon, method, and how to train.
import { fromBytes, toByte } from './pen.ts'
import { CLASSES, LOSSES, METHODS, PIXELS } from './protocol.ts'
import { initial, isEmpty, type State } from './state.ts'

const toText = (pixels: Float32Array): string =>
  btoa(String.fromCharCode(...pixels.map(toByte)))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')

const toPixels = (text: string): Float32Array | undefined => {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0))
    return bytes.length === PIXELS ? fromBytes(bytes) : undefined
  } catch {
    return undefined
  }
}

/** What of a state a link carries. */
export const encodeLink = ({ pad, centre, label, epsilon, method, settings }: State): string => {
  const fields = new URLSearchParams()
  if (pad.picked !== undefined) fields.set('image', String(pad.picked))
  else if (!isEmpty(pad.pixels)) {
    fields.set('drawing', toText(pad.pixels))
    if (!pad.drawn) fields.set('centred', 'as-is')
    else if (!centre) fields.set('centred', 'no')
    if (label !== undefined) fields.set('label', String(label))
  }
  fields.set('epsilon', String(epsilon))
  fields.set('method', method)
  const first = initial.settings
  for (const name of ['loss', 'epsilon', 'epochs', 'images', 'k', 'balance'] as const)
    if (settings[name] !== first[name]) fields.set(`train-${name}`, String(settings[name]))
  return fields.toString()
}

/** A number of a link within its limits, else what stands without it. */
const number = (fields: URLSearchParams, name: string, [low, high]: readonly [number, number], whole = false) => {
  const text = fields.get(name)
  const value = text === null || text === '' ? Number.NaN : Number(text)
  return value >= low && value <= high && (!whole || Number.isInteger(value)) ? value : undefined
}

/** The state with what a link says; what it says wrongly is left as it is. */
export const decodeLink = (state: State, fragment: string): State => {
  const fields = new URLSearchParams(fragment.replace(/^#/, ''))
  const pixels = toPixels(fields.get('drawing') ?? '')
  const image = number(fields, 'image', [0, 1e6], true)
  const pad =
    pixels !== undefined
      ? { ...state.pad, pixels, drawn: fields.get('centred') !== 'as-is' }
      : { ...state.pad, picked: image }
  const { settings } = state
  return {
    ...state,
    pad,
    centre: fields.get('centred') !== 'no',
    label: pixels === undefined ? undefined : number(fields, 'label', [0, CLASSES - 1], true),
    epsilon: number(fields, 'epsilon', [0, 0.3]) ?? state.epsilon,
    method: METHODS.find((m) => m === fields.get('method')) ?? state.method,
    settings: {
      ...settings,
      loss: LOSSES.find((l) => l === fields.get('train-loss')) ?? settings.loss,
      epsilon: number(fields, 'train-epsilon', [0, 0.5]) ?? settings.epsilon,
      epochs: number(fields, 'train-epochs', [1, 200], true) ?? settings.epochs,
      images: [500, 1000, 2000, 4000, 8000].find((n) => String(n) === fields.get('train-images')) ?? settings.images,
      k: number(fields, 'train-k', [1, 20], true) ?? settings.k,
      balance: number(fields, 'train-balance', [0, 1]) ?? settings.balance,
    },
  }
}
