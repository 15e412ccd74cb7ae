import type { LossName } from './protocol.ts'

/** What a loss asks of a network in each step, and the paper that it is from. */
export interface About {
  readonly arxiv: string | undefined
  readonly text: string
}

/** Said below the settings of a training, for the loss that is chosen. */
export const ABOUT: Readonly<Record<LossName, About>> = {
  mixtrain: {
    arxiv: '1811.02625',
    text: 'each step judges a whole batch as it is, and k of its images by sound bounds over their box; the balance weighs the two.',
  },
  natural: { arxiv: undefined, text: 'Each step judges the images as they are, and nothing round them.' },
  pgd: { arxiv: '1706.06083', text: 'each step judges what an attack makes of the images.' },
  trades: {
    arxiv: '1901.08573',
    text: 'each step judges the images as they are, and how far an attack drives the answer from its own.',
  },
  ibp: {
    arxiv: '1810.12715',
    text: 'each step judges the images as they are and by intervals over their boxes; the balance weighs the two.',
  },
  'crown-ibp': {
    arxiv: '1906.06316',
    text: 'as IBP, with linear bounds of the output mixed in while epsilon grows.',
  },
  sabr: { arxiv: '2210.04871', text: 'each step judges small boxes round what an attack found, by intervals.' },
  'mtl-ibp': {
    arxiv: '2305.13991',
    text: 'each step judges what an attack makes of the images, and intervals over their boxes; the balance weighs the two.',
  },
}
