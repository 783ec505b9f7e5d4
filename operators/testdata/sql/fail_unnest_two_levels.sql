-- fails: 3:16+6: unnesting two levels at once is not supported by the sql operator yet
--  hint: unnest one level in a subquery, and the next level in the query around it
SELECT flight, unnest(unnest(make_array(tags))) AS t FROM flights
