-- fails: 4:17+1: a second column of the output is called `a`, as at 3:18
--  hint: give one of them another name with `AS`, or name the columns instead of `*`
SELECT flight AS a, carrier AS b,
       delay AS a FROM flights
