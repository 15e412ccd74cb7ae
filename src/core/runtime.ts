/**
 * A module that only Node and Deno load: one of their own, or a package that stays out of a page. The name is not a literal in the
 * import, so that bundlers for the browser leave it alone and a page can load the library as it is.
 */
export const nodeModule = <M>(name: string): Promise<M> => import(/* webpackIgnore: true */ /* @vite-ignore */ name)

/** Where such a module is. Here, where the name is a parameter: webpack follows a constant, and fails where the package is not installed. */
export const resolveModule = (name: string): string => import.meta.resolve(/* webpackIgnore: true */ name)
