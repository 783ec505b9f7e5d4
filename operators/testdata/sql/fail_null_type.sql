-- fails: 3:16+15: the column `nothing` has no type
--  hint: say which: `CAST(NULL AS …) AS nothing`
SELECT flight, NULL AS nothing FROM flights
