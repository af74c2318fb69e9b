#!/bin/sh
# Draws every picture again:  make.sh TWEMOJI   (the folder of SVG of the npm package @twemoji/svg; see ../README.md)
# What is drawn by hand in a paint program comes out a little differently each time; look at it before you keep it.
set -e
PATH=/usr/bin:$PATH
cd "$(dirname "$0")"
o=$(realpath ../pictures)
python=${PYTHON:-../../../.venv/bin/python} # with matplotlib and Pillow
./imagemagick.sh "$o"
./svg.sh "$o" "$1" /usr/share/openclipart/svg
/usr/bin/python3 draw.py "$o" cairo
/usr/bin/python3 draw.py "$o" qt
"$python" draw.py "$o" matplotlib
(cd "$o" && gnuplot "$OLDPWD/gnuplot.gp")
inkscape inkscape.svg -w 700 -o "$o/inkscape-1.png"
soffice --headless --convert-to png --outdir "$o" libreoffice.fodg
convert "$o/libreoffice.png" -crop 92.6x43%+0+0 +repage "$o/libreoffice-1.png" # the page is put on A4 paper
rm "$o/libreoffice.png"
for name in cairo-1 cairo-2 cairo-3 cairo-4 qt-4 qt-6 matplotlib-1 matplotlib-4 gnuplot-1 gnuplot-2 inkscape-1 libreoffice-1; do
    mogrify +dither -colors 40 -strip "PNG8:$o/$name.png" # small files: few colours
done
"$python" paint.py "$o"
