// usage: node want.js SPOOL MODEL   Drops a want and prints the path of the model.
const fs = require('fs')
const [spool, model] = process.argv.slice(2)
fs.writeFileSync(`${spool}/.js.tmp`, JSON.stringify({ model }))
fs.renameSync(`${spool}/.js.tmp`, `${spool}/js.want`)
const timer = setInterval(() => {
  if (!fs.existsSync(`${spool}/js.progress`)) return
  const answer = JSON.parse(fs.readFileSync(`${spool}/js.progress`))
  if (answer.state === 'ready') console.log(answer.models[0].path)
  if (answer.state === 'failed') process.exitCode = 1
  if (['ready', 'failed'].includes(answer.state)) clearInterval(timer)
}, 50)
