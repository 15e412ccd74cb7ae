// A table as CSV, with names of classes in a column of labels; what cannot be read is said with its line.
import { orThrow, show } from 'mixtrain'
import * as data from 'mixtrain/data'

const text = `length;width;kind
5.1;3.5;setosa
7.0;3.2;versicolor
6.3;3.3;virginica
4.9;3.0;setosa`
const table = orThrow(data.decodeCsv(text, 'iris.csv', { label: 'kind' }))
const iris = data.fromArrays({ name: 'iris', ...table })
console.log(`${iris.count} rows of ${table.features?.join(' and ')}: ${iris.classNames?.join(', ')}`)
console.log(`length goes from ${iris.ranges[0].join(' to ')}`)

const wrong = data.decodeCsv(text.replace('7.0', 'seven'), 'iris.csv')
if (wrong._tag === 'Left') console.log(show(wrong.left))

/* Prints:
4 rows of length and width: setosa, versicolor, virginica
length goes from 4.9 to 7
iris.csv (line 3): expected a number in column length, found "seven"
*/
