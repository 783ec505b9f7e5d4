-- fails: 2:8+4: incompatible inputs for Union: Previous inputs were of type List(Utf8), but got incompatible type Int32 on column 'flight'
SELECT tags AS x FROM flights UNION ALL SELECT flight FROM arrivals
