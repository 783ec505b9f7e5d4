-- fails: 2:34+14: cannot cast string 'late' to value of Float64 type
SELECT flight FROM flights WHERE delay > 'late'
