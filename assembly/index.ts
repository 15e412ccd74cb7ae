export { heapBase, isWide, park, run, scratchOf, sharedOf } from './machine'
export { setup, stop, waits } from './threads'
