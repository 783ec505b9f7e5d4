-- fails: 3:8+1: a second column of the output is called `carrier`
--  hint: give one of them another name with `AS`, or name the columns instead of `*`
SELECT * FROM flights JOIN airlines ON airlines.carrier = flights.carrier
