/**
 * A module of Node (Deno has them too). The name is not a literal in the import, so that bundlers for the browser leave it alone and
 * a page can load the library as it is.
 */
export const nodeModule = <M>(name: `node:${string}`): Promise<M> =>
  import(/* webpackIgnore: true */ /* @vite-ignore */ name)
