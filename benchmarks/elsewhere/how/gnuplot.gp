# Pictures drawn by gnuplot:  cd OUT && gnuplot gnuplot.gp
unset border; unset tics; unset key; unset title; set size ratio -1
set margins 0,0,0,0
set xrange [0:6]; set yrange [0:4]
set term pngcairo size 600,400 background "white"
set output "gnuplot-1.png"
set object 1 circle at 1.4,2.9 size 0.7 fillcolor rgb "#ff0000" fillstyle solid border lc rgb "black" lw 3
set object 2 rectangle from 3.3,0.4 to 5.6,1.5 fillcolor rgb "#0000ff" fillstyle solid border lc rgb "black" lw 3
plot -1 with lines
unset object
set output "gnuplot-2.png"
set object 1 polygon from 1,0.5 to 2,2.2 to 0.1,2.2 to 1,0.5 fillcolor rgb "#ffa500" fillstyle solid noborder
set object 2 polygon from 3,1.8 to 4,3.5 to 2,3.5 to 3,1.8 fillcolor rgb "#ffa500" fillstyle solid noborder
set object 3 polygon from 5,0.5 to 5.9,2.2 to 4,2.2 to 5,0.5 fillcolor rgb "#808080" fillstyle solid noborder
plot -1 with lines
